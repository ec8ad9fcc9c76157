# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The package imports its modules only when they are used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pyvo.samp import web_profile


@pytest.mark.parametrize("name", web_profile.__all__)
def test_the_names_of_the_package(name: str) -> None:
    assert getattr(web_profile, name)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match=r"'pyvo\.samp\.web_profile' has no attribute 'nothing'"):
        _ = web_profile.nothing


@pytest.mark.parametrize(
    ("module", "unused"),
    [
        ("pyvo.samp.web_profile.consent_prompts", "pyvo.samp.web_profile.profile"),
        ("pyvo.samp.web_profile.consent_tk", "pyvo.samp.errors"),  # the window needs the standard library only
    ],
)
def test_unused_modules_are_not_imported(module: str, unused: str) -> None:
    code = f"import sys, {module}; assert {unused!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[2])
