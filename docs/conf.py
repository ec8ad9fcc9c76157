# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""How Sphinx builds the documentation: ``sphinx-build -W -b html docs docs/_build/html``."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx_astropy.conf.v2 import *  # noqa: F403 - this is how sphinx-astropy is meant to be used
from sphinx_astropy.conf.v2 import exclude_patterns, extensions

sys.path.insert(0, str(Path(__file__).parent))

from describe import write_all

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "pyvo.samp"
author = "The pyvo-samp developers"
copyright = f"2026, {author}"
try:
    release = installed_version("pyvo-samp")
except PackageNotFoundError:  # a checkout that was never installed
    release = "0.1.dev0"
version = ".".join(release.split(".")[:2])

# The build asks nothing of the network: it must give the same pages on a train as in continuous integration. It draws
# no graphs either, which would need Graphviz; and what runs the examples is the tests, not Sphinx.
_not_used = {
    "sphinx.ext.intersphinx",
    "sphinx_astropy.ext.intersphinx_toggle",
    "sphinx.ext.inheritance_diagram",
    "pytest_doctestplus.sphinx.doctestplus",
    "matplotlib.sphinxext.plot_directive",
    "sphinx.ext.mathjax",
}
intersphinx_mapping: dict[str, object] = {}
extensions = [name for name in extensions if name not in _not_used]
extensions.append("myst_nb")
nb_execution_mode = "off"  # the notebooks are stored with their output; a test executes them

exclude_patterns += ["_build", "_templates", "**.ipynb_checkpoints", "examples/README.rst"]
default_role = "obj"
nitpicky = False
suppress_warnings = ["app.add_directive"]

html_theme = "pydata_sphinx_theme"
html_title = f"pyvo.samp {version}"
html_theme_options = {
    "logo": {"text": "pyvo.samp"},  # a version with a commit in it would run over the navigation
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "icon_links": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_extra_path = ["web"]  # pages that talk to a hub themselves
templates_path: list[str] = []
html_show_sourcelink = False
html_last_updated_fmt = None  # two builds of one tree are equal

numpydoc_show_class_members = False
automodapi_toctreedirnm = "api"
automodsumm_inherited_members = True


def write_included_files(_app: object) -> None:
    """Write what pages take from the code."""
    write_all(Path(__file__).parent / "api")


def setup(app: Sphinx) -> None:
    """Tell Sphinx what is done before it reads the pages."""
    app.connect("builder-inited", write_included_files)
