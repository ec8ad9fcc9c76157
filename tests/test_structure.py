"""The structure of the package: no import cycles, imports of lower layers only, no long modules, standard words."""

from __future__ import annotations

import ast

import pytest

from .conftest import ROOT
from .package_structure import LAYERS, cycles, imports, layer_name, modules, names, words

MAX_LINES = 700
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

#: Words that this package once used instead of the words of SAMP, HTTP or Python.
PRIVATE_WORDS = [
    "farewell", "remains", "leave_aside", "pronounce_dead", "take_leave", "heed", "spare_news", "give_way",
    "last_words", "shelf", "lot", "loan", "workbench", "bench", "people", "newcomer", "keeper", "patient",
    "patience", "hub_link",
    "turns", "doubt", "thrown_out", "gave_way", "look_every", "meanwhile", "reproach", "linger", "is_awaited", "owed",
    "awaited", "may_reach", "tap", "taps", "roster", "treacherous", "harmless",
]  # fmt: skip


#: Names of the standard library with such a word.
STANDARD_NAMES = {"SO_LINGER"}


def has_words(name: str, private: str) -> bool:
    """Whether a name consists of these words, or begins or ends with them."""
    found, wanted = words(name), private.split("_")
    return wanted in (found[: len(wanted)], found[-len(wanted) :])


def graph(*, packages: bool) -> dict[str, set[str]]:
    """Return the imports of each module, or of each package and each module that is in no package."""
    found: dict[str, set[str]] = {layer_name(name) if packages else name: set() for name in modules()}
    for module in modules():
        for each in imports(module):
            ends = (layer_name(each.module), layer_name(each.imported)) if packages else each[:2]
            if ends[0] != ends[1]:
                found[ends[0]].add(ends[1])
    return found


def test_no_import_cycles_of_modules() -> None:
    """No module imports itself through others; imports in functions and for typing count, too."""
    assert cycles(graph(packages=False)) == []


def test_no_import_cycles_of_packages() -> None:
    assert cycles(graph(packages=True)) == []


def test_imports_go_downward() -> None:
    """The layers are those of ``docs/contributing/architecture.rst``."""
    upward = [
        f"{each.module}:{each.line} imports {each.imported}"
        for module in modules()
        for each in imports(module)
        if layer_name(each.module) != layer_name(each.imported)
        and RANK[layer_name(each.imported)] >= RANK[layer_name(each.module)]
    ]
    assert upward == []


def test_every_module_has_a_layer() -> None:
    assert {layer_name(module) for module in modules()} <= set(RANK)


def test_imports_are_relative() -> None:
    """The package does not import its own modules by their full names."""
    absolute = [
        f"{name}:{node.lineno}"
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("pyvo.samp")
    ]
    assert absolute == []


@pytest.mark.parametrize("module", modules())
def test_module_is_not_too_long(module: str) -> None:
    assert len(modules()[module].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("folder", ["pyvo", "benchmarks", "docs"])
def test_words(folder: str) -> None:
    """Names use the words of SAMP, HTTP and the standard library."""
    found = {
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, line in names(path)
        for private in PRIVATE_WORDS
        if has_words(name, private) and name not in STANDARD_NAMES
    }
    assert sorted(found) == []


# The checks themselves


def test_cycles_are_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    assert cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    ("name", "private"),
    [("_last_words", "last_words"), ("HubLink", "hub_link"), ("on_farewell", "farewell"), ("PATIENCE", "patience")],
)
def test_words_are_found(name: str, private: str) -> None:
    assert has_words(name, private)


@pytest.mark.parametrize("name", ["slot", "returns", "allotment", "plot", "pilot"])
def test_other_words_are_not_found(name: str) -> None:
    assert not any(has_words(name, private) for private in PRIVATE_WORDS)


def test_imports_are_found() -> None:
    """The check finds relative imports of each level, and imports of a package's own modules."""
    assert "cli.output" in {each.imported for each in imports("cli.call")}
    assert {"errors", "protocol"} <= {each.imported for each in imports("cli.arguments")}
    assert "cli.main" in {each.imported for each in imports("cli")}
