"""The structure of the package, read from its source: modules, imports, and names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1] / "pyvo" / "samp"

#: Packages and single modules, the lowest first. An import goes to an earlier layer, or stays in its package.
#: Layers of one line do not import each other.
LAYERS = [
    ["constants", "errors", "_version", "_conf"],
    ["protocol"],
    ["transport"],
    ["lockfile", "ordered_dispatcher", "process_events", "temporary_files"],
    ["lockfile_writer"],
    ["broker", "client", "formats"],
    ["standard_profile", "web_profile", "exchange", "jupyter_server"],
    ["window"],
    ["hub"],
    ["integrated_client"],
    ["aio", "hub_proxy", "lockfile_helpers", "utils", "vo_helpers"],
    ["bridge", "jupyter", "testing"],
    ["cli"],
    ["hub_script", "__main__"],
    [""],  # pyvo.samp itself, which imports a module when a program uses it
]


class Import(NamedTuple):
    """An import of one module of the package by another."""

    module: str
    imported: str
    line: int


def module_name(path: Path) -> str:
    """Return the name of a module without the package's own, such as ``broker.registry``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """All modules of the package."""
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def layer_name(module: str) -> str:
    """Return the package of a module, or the module itself if it is in no package."""
    return module.partition(".")[0]


def imports(module: str) -> Iterator[Import]:
    """Find the imports of a module, including those in functions and for typing, but not those of ``python -m``."""
    path = modules()[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in _walk(parse(path)):
        if isinstance(node, ast.ImportFrom):
            for imported in _from(node, [part for part in package if part]):
                if imported != module:
                    yield Import(module, imported, node.lineno)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name.removeprefix("pyvo.samp").lstrip(".")
                if alias.name.startswith("pyvo.samp") and name in modules():
                    yield Import(module, name, node.lineno)


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        # code that runs only as a program, such as `python -m pyvo.samp.hub`, does not count
        if not (isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)):
            yield node
            yield from _walk(node)


def _from(node: ast.ImportFrom, package: list[str]) -> set[str]:
    if node.level:
        base = package[: len(package) - node.level + 1]
        base = [*base, *(node.module or "").split(".")] if node.module else base
    elif (node.module or "").startswith("pyvo.samp"):
        base = [part for part in (node.module or "").removeprefix("pyvo.samp").split(".") if part]
    else:
        return set()
    found = set()
    for alias in node.names:  # a module, or a name in the module
        name = ".".join([*base, alias.name])
        found.add(name if name in modules() else ".".join(base))
    return found


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Find the groups of nodes that reach each other."""
    reached = {node: _reach(graph, node) for node in graph}
    found = {frozenset(other for other in reached[node] if node in reached[other]) for node in graph}
    return sorted(sorted(group) for group in found if group)


def _reach(graph: dict[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    pending = [start]
    while pending:
        for node in graph.get(pending.pop(), ()):
            if node not in reached:
                reached.add(node)
                pending.append(node)
    return reached


def names(path: Path) -> Iterator[tuple[str, int]]:
    """Find the names that a module defines or uses, with their lines."""
    yield path.stem, 1
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg, node.value.lineno


def words(name: str) -> list[str]:
    """Split a name, in any of Python's styles, into words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_").split("_")
