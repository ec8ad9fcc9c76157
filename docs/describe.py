# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Parts of the documentation that are made from the code at each build: the help of the commands, tables of modules."""

from __future__ import annotations

import ast
import os
from importlib import import_module
from pathlib import Path

from pyvo.samp.cli.main import COMMANDS, load_command

__all__ = ["packages", "write_all"]

PACKAGE = Path(import_module("pyvo.samp").__path__[0])


def write_all(folder: Path) -> None:
    """Write the files that pages include."""
    folder.mkdir(exist_ok=True)
    write_help(folder)
    write_modules(folder)


def write_help(folder: Path) -> None:
    """Write the help of each command."""
    os.environ["COLUMNS"] = "100"
    for name in COMMANDS:
        _command, parser = load_command(name)
        (folder / f"help-{name}.txt").write_text(parser.format_help())


def packages() -> list[Path]:
    """List the directories of the package that have modules, the package itself first."""
    return [PACKAGE, *sorted(path for path in PACKAGE.iterdir() if (path / "__init__.py").exists())]


def write_modules(folder: Path) -> None:
    """Write a table for each package: its modules, the first sentence of each, and what it imports."""
    for directory in packages():
        rows = [row for path in sorted(directory.glob("*.py")) if (row := _row(path))]
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 18 50 32", ""]
        for row in [("Module", "Description", "Imports"), *rows]:
            lines += [f"   {'*' if number == 0 else ' '} - {cell}" for number, cell in enumerate(row)]
        (folder / f"modules-{directory.name}.txt").write_text("\n".join(lines) + "\n")


def _row(path: Path) -> tuple[str, str, str] | None:
    if path.stem in {"__init__", "_version"}:
        return None
    tree = ast.parse(path.read_text())
    text = (ast.get_docstring(tree) or "").partition("\n\n")[0].replace("\n", " ")
    return f"``{path.stem}``", text, ", ".join(f"``{name}``" for name in sorted(_imported(tree))) or "nothing"


def _imported(tree: ast.Module) -> set[str]:
    """Find the modules of the package that a module imports when it is imported itself."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
    return found
