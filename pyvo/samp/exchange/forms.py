# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What a product is, and the forms in which one can be sent."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["Form", "Product", "attribute", "first_text", "is_a"]


@dataclass(frozen=True)
class Form:
    """One way to send a product: the MType, the file, and how its message names it."""

    mtype: str
    suffix: str
    #: Writes the file; None for a product that needs none, or is in one already.
    write: Callable[[BinaryIO], object] | None = None
    #: The parameter that holds the product's id, such as ``table-id``.
    id_key: str | None = None
    #: Further parameters.
    params: dict[str, Any] = field(default_factory=dict)
    #: Makes all the parameters of the URL and the name, where the message is no ordinary one.
    make_params: Callable[[str, str], dict[str, Any]] | None = None
    #: Tells whether a program, by its name, should get this form although it takes an earlier one as well.
    is_better_for: Callable[[str], bool] | None = None


@dataclass(frozen=True)
class Product:
    """Something to send."""

    kind: str
    name: str
    forms: Sequence[Form]
    #: Bytes, about; for progress bars.
    size: int = 0
    #: The file that it is in already.
    path: Path | None = None
    #: The URL where it is already.
    url: str | None = None
    #: Counts the rows of a table.
    count: Callable[[], int] | None = None


def is_a(obj: Any, module: str, *names: str) -> bool:
    """Whether an object is of one of some classes of a module, which need not be loaded to ask."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return False
    return isinstance(obj, tuple(kind for name in names if (kind := getattr(loaded, name, None)) is not None))


def first_text(*candidates: object) -> str:
    """The first that is some text."""
    return next((str(text) for text in candidates if isinstance(text, str) and text.strip()), "")


def attribute(obj: Any, name: str) -> Any:
    """An attribute that an object of unknown kind may have; what fails is none."""
    if isinstance(obj, type):
        return None
    try:
        return getattr(obj, name, None)
    except Exception:
        return None
