# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Importing the package is cheap, and installing it replaces only `pyvo.samp`."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import venv
from importlib import import_module
from pathlib import Path

import pytest

import pyvo.samp
from pyvo.samp import constants

ROOT = Path(__file__).parents[1]

MODULES = [
    *("client", "constants", "errors", "hub", "hub_proxy", "integrated_client", "lockfile_helpers"),
    *("standard_profile", "utils", "vo_helpers", "web_profile"),
]


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_attributes(module: str) -> None:
    """``import pyvo.samp`` suffices for ``pyvo.samp.hub``."""
    script = f"import pyvo.samp; print(pyvo.samp.{module}.__name__)"
    assert run(script).split() == [f"pyvo.samp.{module}"]


@pytest.mark.parametrize("module", [pyvo.samp, constants])
def test_unknown_names(module: object) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        module.nonsense  # noqa: B018


def test_configuration(isolated: Path) -> None:
    """Both settings can be read and set, and neither creates a file. (Astropy before 7 creates its own directory.)"""
    from pyvo.samp import conf

    assert conf.use_internet is True
    assert conf.n_retries == 10
    with conf.set_temp("use_internet", False):
        assert conf.use_internet is False
    assert [path.name for path in isolated.iterdir() if path.name != ".astropy"] == []
    assert not list(isolated.glob("**/pyvo*"))


# Imports


def run(script: str, *options: str) -> str:
    """Run a script in another Python."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light(isolated: Path) -> None:
    """The import loads no table, VOTable or server modules, opens only modules, and makes no threads or sockets."""
    script = """
import sys, threading
opened = []
import_is_over = False
def note(event, args):
    if event == "open" and not import_is_over and "pyvo" in str(args[0]) and not str(args[0]).endswith((".py", ".pyc")):
        opened.append(str(args[0]))
    if event.startswith("socket."):
        opened.append(event)
sys.addaudithook(note)
import pyvo.samp
import_is_over = True
unwanted = {"astropy", "astropy.table", "astropy.io.votable", "numpy", "xmlrpc.server", "http.server", "socketserver"}
assert not unwanted & set(sys.modules), unwanted & set(sys.modules)
assert not [name for name in opened if ".pyc." not in name], opened
assert threading.active_count() == 1
assert pyvo.samp.SAMP_ICON[1:4] == b"PNG"
"""
    run(script)


def test_hub_and_clients_need_no_tables(isolated: Path) -> None:
    """The import of the modules that send messages, wait for objects or control DS9 does not import `astropy.table`."""
    script = """
import sys
from pyvo.samp import SAMPHubServer, SAMPIntegratedClient, connection
from pyvo.samp.exchange import client_list, incoming, sending, typed_handlers, viewers
assert not {"astropy.table", "astropy.io.votable", "astropy.io.fits"} & set(sys.modules)
"""
    run(script)


def test_there_is_no_init_file() -> None:
    """`pyvo` is a namespace package, so that an installed upstream pyvo can take its place."""
    assert not (ROOT / "pyvo" / "__init__.py").exists()
    assert (ROOT / "pyvo" / "samp" / "py.typed").exists()


# Installation

#: Sends the response of a service, and prints a UCD and an INFO of the table that arrives.
SEND_RESULTS = """
import warnings
from astropy.io.votable import from_table, parse, tree
from astropy.table import Table
from pyvo.dal.query import DALResults
from pyvo.samp import SAMPHubServer, SAMPIntegratedClient
table = Table({"ra": [1.0, 2.0]})
table["ra"].meta["ucd"] = "pos.eq.ra"
document = from_table(table)
document.resources[0].infos.append(tree.Info(name="QUERY_STATUS", value="OK"))
hub = SAMPHubServer(web_profile=False)
hub.start()
with SAMPIntegratedClient(name="Alice") as alice, SAMPIntegratedClient(name="Bob") as bob:
    arrived = []
    @bob.on("table.load.votable")
    def load(url: str):
        arrived.append(parse(url))
    assert alice.send(DALResults(document), to="Bob").ok
[document] = arrived
print(document.get_first_table().fields[0].ucd, document.resources[0].infos[0].value)
hub.stop()
"""


def test_metadata_and_files() -> None:
    """The metadata name two dependencies, the plugin for pytest, and commands that exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert [text.split(">")[0] for text in project["project"]["dependencies"]] == ["astropy", "numpy"]
    (plugin,) = project["project"]["entry-points"]["pytest11"].items()
    assert plugin == ("pytest_pyvo_samp", import_module("pytest_pyvo_samp").__name__)
    assert project["tool"]["setuptools"]["py-modules"] == ["pytest_pyvo_samp"]
    for target in project["project"]["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_top_of_upstream(tmp_path: Path, isolated: Path) -> None:
    """An installation over upstream's pyvo, with the real pip, replaces `pyvo.samp` and nothing else."""
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def call(*command: object) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if command[1:3] == ("-m", "pip") and "No matching distribution" in done.stderr:
            pytest.skip(f"no package index can be reached: {done.stderr.splitlines()[-1]}")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    source = tmp_path / "source"
    call("git", "clone", "--quiet", "--no-hardlinks", ROOT, source)
    call(python, "-m", "pip", "install", "--quiet", "pyvo==1.9.1")
    upstream = call(python, "-c", "import pyvo; print(pyvo.__version__, pyvo.__file__)")
    call(python, "-m", "pip", "install", "--quiet", source)

    assert call(python, "-c", "import pyvo; print(pyvo.__version__, pyvo.__file__)") == upstream
    script = "import pyvo.dal, pyvo.registry, pyvo.samp; print(pyvo.samp.__version__, pyvo.samp.SAMPError.__name__)"
    version, name = call(python, "-c", script).split()
    assert name == "SAMPError"
    listed = call(python, "-m", "pip", "list", "--format", "freeze")
    assert f"pyvo-samp=={version}".lower() in listed.lower().replace("_", "-")
    assert "did NOT" not in call(python, "-m", "pyvo.samp", "demo")
    assert call(python, "-c", SEND_RESULTS) == "pos.eq.ra OK"
    assert "usage: samp_hub" in call(scripts / "samp_hub", "--help")
    assert "usage: samp" in call(scripts / "samp", "--help")
