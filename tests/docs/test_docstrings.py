"""numpydoc accepts the docstring of every public object: classes, methods, properties and functions."""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from pathlib import Path

import pytest

validate = pytest.importorskip("numpydoc.validate")

#: Not required: examples, cross references and second paragraphs that would add nothing, and a Returns section if the
#: summary already describes the return value.
LEFT_OUT = {"EX01", "SA01", "ES01", "RT01"}


MODULES = Path(__file__).parents[2] / "docs" / "reference" / "modules.rst"
_SHOWN = re.compile(r"^\.\. automodapi:: (\S+)\n((?:   :.*\n)*)", re.MULTILINE)


def public() -> list[str]:
    """Return the names of classes, functions and methods that the reference shows."""
    found = _in_module("pyvo.samp", set())
    for name, options in _SHOWN.findall(MODULES.read_text(encoding="utf-8")):
        skipped = re.search(r":skip: (.*)", options)
        found += _in_module(name, set(skipped[1].split(", ")) if skipped else set())
    return found


def _in_module(module: str, skipped: set[str]) -> list[str]:
    package = importlib.import_module(module)
    found = []
    for name in set(package.__all__) - skipped:
        thing = getattr(package, name)
        if inspect.isclass(thing):
            found.append(f"{module}.{name}")
            members = inspect.getmembers_static(thing)  # properties of ipywidgets warn when they are read
            found += [f"{module}.{name}.{key}" for key, member in members if key[0] != "_" and _is_ours(member)]
        elif inspect.isfunction(thing):
            found.append(f"{module}.{name}")
    return sorted(found)


def _is_ours(member: object) -> bool:
    function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    return inspect.isfunction(function) and str(getattr(function, "__module__", "")).startswith("pyvo.samp")


@pytest.mark.parametrize("name", public())
def test_docstring_is_valid(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpydoc reads properties of ipywidgets, which warn
        result = validate.validate(name)
    errors = [error for error in result["errors"] if error[0] not in LEFT_OUT]
    if "\n    As " in result["docstring"]:  # "As of `send`": the docstring of `send` has the types
        errors = [error for error in errors if error[0] != "PR04"]
    assert not errors, errors


@pytest.mark.parametrize("name", ["pyvo.samp", *(name for name, _options in _SHOWN.findall(MODULES.read_text()))])
def test_module_has_a_sentence(name: str) -> None:
    """The docstring of a module starts with a sentence. numpydoc cannot validate packages."""
    first_line = (inspect.getdoc(importlib.import_module(name)) or "").partition("\n\n")[0]
    assert first_line[:1].isupper()
    assert first_line.endswith((".", ":"))


def test_the_reference_has_all_names() -> None:
    """The reference shows all names in ``pyvo.samp.__all__``, so these tests cover them; constants have a section."""
    import pyvo.samp

    text = MODULES.read_text(encoding="utf-8")
    covered = set(public())
    missing = [name for name in pyvo.samp.__all__ if f"pyvo.samp.{name}" not in covered and f"``{name}``" not in text]
    assert missing == ["conf"]  # an instance of Conf, which is covered
