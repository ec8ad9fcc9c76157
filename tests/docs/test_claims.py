"""Tests, commands and files that the pages mention exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pyvo.samp.cli.main import _parse

from .examples import DOCS

ROOT = DOCS.parent
PAGES = [ROOT / "README.rst", ROOT / "CONTRIBUTING.rst", *sorted(DOCS.rglob("*.rst"))]
PAGES = [path for path in PAGES if "_build" not in path.parts and "api" not in path.parts]


def found(pattern: str) -> list[tuple[str, str]]:
    """Return all matches of a pattern in the pages, with the page of each."""
    return [
        (str(path.relative_to(ROOT)), match)
        for path in PAGES
        for match in re.findall(pattern, path.read_text(), re.MULTILINE)
    ]


@pytest.mark.parametrize(("page", "command"), found(r"^ +samp ([a-z].*?)(?: &)?$"))
def test_commands_are_valid(page: str, command: str) -> None:
    assert callable(_parse(shlex.split(command, comments=True)).run)


@pytest.mark.parametrize(("page", "module"), found(r"``((?:tests|docs|benchmarks)/[\w/.]+)``"))
def test_files_exist(page: str, module: str) -> None:
    if module == "docs/_build/html":
        return
    assert (ROOT / module).exists()


@pytest.mark.parametrize(("page", "name"), found(r"``(test_\w+)``"))
def test_tests_exist(page: str, name: str) -> None:
    assert any(f"def {name}(" in path.read_text() for path in Path(ROOT / "tests").rglob("test_*.py"))


def test_patterns_match() -> None:
    """The patterns of the tests above find commands and files."""
    assert len(found(r"^ +samp ([a-z].*?)$")) > 5
    assert len(found(r"``(tests/[\w/.]+)``")) > 20
