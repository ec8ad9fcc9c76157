"""The architecture page names existing files, functions and packages, and shows the layers of the package."""

from __future__ import annotations

import ast
import re

import pytest

from tests.package_structure import LAYERS, PACKAGE, modules, parse

from .examples import DOCS, load_module

PAGE = DOCS / "contributing" / "architecture.rst"
TEXT = PAGE.read_text(encoding="utf-8")
#: A file, and the names after it that it defines.
REFERENCE = re.compile(r"``([a-z0-9_/]+\.py)``((?:(?: and| or|,)?\s+``[A-Za-z_][\w.]*``)*)")
#: Paths outside the package.
OTHERS = ("tests/", "docs/")


def references() -> list[tuple[str, str]]:
    found = []
    for path, names in REFERENCE.findall(TEXT):
        if not path.startswith(OTHERS):
            found += [(path, name) for name in re.findall(r"``([\w.]+)``", names)] or [(path, "")]
    return sorted(set(found))


def defined(path: str) -> set[str]:
    """Return the names that a module defines: functions, classes, methods and constants."""
    found = set()
    for node in parse(PACKAGE / path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}.{method.name}" for method in methods}
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize(("path", "name"), references())
def test_reference_exists(path: str, name: str) -> None:
    assert (PACKAGE / path).exists()
    assert not name or name in defined(path)


def test_references_are_found() -> None:
    assert len(references()) > 50


def test_every_package_has_a_table() -> None:
    included = set(re.findall(r"include:: ../api/modules-(\w+)\.txt", TEXT))
    assert included == {path.name for path in load_module(DOCS / "describe.py").packages()}


def test_picture_has_all_packages() -> None:
    """The picture shows all packages, and all of them belong to a layer."""
    picture = TEXT.partition(".. code-block:: none")[2].partition("\nThe event loop")[0]
    exist = {name.partition(".")[0] for name in modules() if "." in name}
    drawn = set(re.findall(r"\w+", picture))
    assert exist <= drawn
    assert exist <= {name for layer in LAYERS for name in layer}
