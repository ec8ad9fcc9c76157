# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What an object is to other programs, and the forms in which it can be sent.

Each kind of object has an adapter, a function that recognises it and tells its forms, the best one first. Nothing that
an adapter needs is imported before an object turns up that needs it: an object of a library that was never loaded
cannot exist.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..errors import SAMPTypeError
from .forms import Form, Product, is_a
from .image_forms import array_of, hdu_of, hdulist_of, nddata_of
from .sky_forms import moc_of, position_of, spectrum_of
from .table_forms import frame_of, table_of, table_product, tabular_of, votable_of

__all__ = ["SENDABLE", "as_votable", "product_of"]

#: What `send` takes, for error messages.
SENDABLE = (
    "Table, QTable, structured numpy array, VOTableFile, TableElement, anything with .votable or .to_table() (pyvo "
    "and astroquery results), pandas DataFrame, HDU, HDUList, CCDData, NDData, numpy image (2-d array), Spectrum "
    "(specutils), MOC (mocpy), SkyCoord, path, URL"
)


def product_of(obj: Any) -> Product:
    """
    Find out what an object is.

    Parameters
    ----------
    obj : object
        One of `SENDABLE`.

    Returns
    -------
    Product
        What can be sent of it.

    Raises
    ------
    SAMPTypeError
        It is nothing that other programs could load; the text lists what is.
    FileNotFoundError
        It is the path of no file.
    """
    if isinstance(obj, str | os.PathLike):
        from .sniffing import product_at  # noqa: PLC0415 - it needs this module

        return product_at(obj)
    for adapter in _ADAPTERS:
        product = adapter(obj)
        if product is not None:
            return product
    raise SAMPTypeError(f"{_described(obj)} cannot be sent. What can: {SENDABLE}.")


def as_votable(obj: Any) -> tuple[Product, Form]:
    """
    Find out how an object is sent as a VOTable.

    Parameters
    ----------
    obj : object
        What `product_of` takes for a table.

    Returns
    -------
    Product, Form
        What can be sent of it, and the form that is a VOTable.

    Raises
    ------
    SAMPTypeError
        It is no table.
    """
    product = product_of(obj)
    form = _votable_form(product)
    if form is None and product.kind == "table":  # a file of another format
        from .fetching import fetched  # noqa: PLC0415
        from .loading import read_table  # noqa: PLC0415

        with fetched(product.url, product.path) as place:
            product = table_product(read_table(place), product.name)
        form = _votable_form(product)
    if form is None:
        raise SAMPTypeError(f"{product.name!r} is sent as {product.kind}, and that is no table")
    return product, form


def _votable_form(product: Product) -> Form | None:
    return next((form for form in product.forms if form.mtype == "table.load.votable"), None)


def _described(obj: Any) -> str:
    if is_a(obj, "numpy", "ndarray"):
        return f"An array of {obj.ndim} dimensions and type {obj.dtype}"
    package = type(obj).__module__.partition(".")[0]
    return f"An object of type {'' if package == 'builtins' else package + '.'}{type(obj).__name__}"


#: In the order in which they are asked; the more particular come first.
_ADAPTERS: list[Callable[[Any], Product | None]] = [
    table_of, votable_of, frame_of, hdu_of, hdulist_of, position_of, moc_of, spectrum_of, nddata_of, array_of,
    tabular_of,
]  # fmt: skip
