"""The notebooks of the documentation run with a real hub; one of them requires TOPCAT."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pyvo.samp import SAMPHubServer

from .examples import DOCS, load_module

ROOT = DOCS.parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def run(python_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, isolated: Path) -> Any:
    """The function that runs a notebook, in a kernel that imports this package."""
    pytest.importorskip("ipykernel")
    pytest.importorskip("nbclient")
    for name, value in python_environment.items():
        monkeypatch.setenv(name, value)
    return load_module(DOCS / "notebooks" / "run.py").execute


def outputs(notebook: Any) -> str:
    return "\n".join(
        str(output.get("text") or output.get("data", {}).get("text/plain"))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )


# nbclient and ipykernel leave resources open, and warn
@pytest.mark.filterwarnings("ignore")
def test_viewer(run: Any, hub: SAMPHubServer) -> None:
    text = outputs(run("viewer"))
    assert "My notebook points at 83.633 +22.014" in text
    assert "Three stars from Viewer" in text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.interop
def test_topcat(run: Any, hub: SAMPHubServer, isolated: Path) -> None:
    if shutil.which("topcat") is None or shutil.which("Xvfb") is None or shutil.which("import") is None:
        pytest.skip("TOPCAT and a screen are not installed (tests/interop/install does it)")
    from tests.interop.programs import Program, Screen, environment

    screen = Screen(environment(isolated))
    try:
        with Program("topcat", "-samp", env=environment(isolated, screen.display)):
            text = outputs(run("topcat"))
    finally:
        screen.stop()
    assert '(1000, Unit("deg"), True)' in text


def test_notebooks_import_this_package() -> None:
    """The tests above test the package of this checkout, not an installed one."""
    assert os.path.samefile(ROOT / "pyvo", Path(sys.modules["pyvo.samp"].__path__[0]).parent)
