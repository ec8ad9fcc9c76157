"""The docstrings of what is public say what numpydoc expects of them."""

from __future__ import annotations

import inspect

import pytest

import pyvo.samp

validate = pytest.importorskip("numpydoc.validate")

#: What is not asked for: examples, cross references and second paragraphs where they would say nothing, and a section
#: on what is returned where one sentence has said it.
LEFT_OUT = {"EX01", "SA01", "ES01", "RT01"}


def public() -> list[str]:
    """Names of classes, functions and methods of the package, as users see them."""
    found = []
    for name in pyvo.samp.__all__:
        thing = getattr(pyvo.samp, name)
        if inspect.isclass(thing):
            found.append(f"pyvo.samp.{name}")
            members = inspect.getmembers(thing)
            found += [f"pyvo.samp.{name}.{key}" for key, member in members if key[0] != "_" and _is_ours(member)]
        elif inspect.isfunction(thing):
            found.append(f"pyvo.samp.{name}")
    return found


def _is_ours(member: object) -> bool:
    function = member.fget if isinstance(member, property) else member
    return inspect.isfunction(function) and str(getattr(function, "__module__", "")).startswith("pyvo.samp")


@pytest.mark.parametrize("name", public())
def test_docstring(name: str) -> None:
    result = validate.validate(name)
    errors = [error for error in result["errors"] if error[0] not in LEFT_OUT]
    if "\n    As " in result["docstring"]:  # "As of `send`": the types are there
        errors = [error for error in errors if error[0] != "PR04"]
    assert not errors, errors
