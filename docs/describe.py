# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What the documentation takes from the code at each build: the help of the commands, and who imports whom."""

from __future__ import annotations

import argparse
import ast
import os
from importlib import import_module
from pathlib import Path

from pyvo.samp.cli.main import COMMANDS

__all__ = ["write_all"]

PACKAGE = Path(import_module("pyvo.samp").__path__[0])


def write_all(folder: Path) -> None:
    """
    Write the files that pages include.

    Parameters
    ----------
    folder : pathlib.Path
        Where they go.
    """
    folder.mkdir(exist_ok=True)
    write_help(folder)
    write_modules(folder)


def write_help(folder: Path) -> None:
    """Write the help of each command."""
    os.environ["COLUMNS"] = "100"
    for name, (module_name, text) in COMMANDS.items():
        module = import_module(f"pyvo.samp.cli.{module_name}")
        parser = argparse.ArgumentParser(
            prog=f"samp {name}",
            description=text,
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(parser)
        (folder / f"help-{name}.txt").write_text(parser.format_help())


def write_modules(folder: Path) -> None:
    """Write a table for each directory of the package: its modules, what each is for, and what it imports."""
    for directory in [PACKAGE, *sorted(path for path in PACKAGE.iterdir() if (path / "__init__.py").exists())]:
        rows = [row for path in sorted(directory.glob("*.py")) if (row := _row(path))]
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 18 50 32", ""]
        for row in [("Module", "What it is for", "Imports"), *rows]:
            lines += [f"   {'*' if number == 0 else ' '} - {cell}" for number, cell in enumerate(row)]
        (folder / f"modules-{directory.name}.txt").write_text("\n".join(lines) + "\n")


def _row(path: Path) -> tuple[str, str, str] | None:
    if path.stem in {"__init__", "_version"}:
        return None
    tree = ast.parse(path.read_text())
    text = (ast.get_docstring(tree) or "").partition("\n\n")[0].replace("\n", " ")
    return f"``{path.stem}``", text, ", ".join(f"``{name}``" for name in sorted(_imported(tree))) or "nothing"


def _imported(tree: ast.Module) -> set[str]:
    """What a module imports of the package when it is imported itself, without its own prefix."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level or module.startswith("pyvo.samp"):
                name = module.removeprefix("pyvo.samp").lstrip(".")
                found |= {name} if name else {alias.name for alias in node.names}
    return found
