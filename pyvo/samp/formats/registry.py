# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What an object is to other programs, and the forms in which it can be sent.

Each kind of object has an adapter, a function that recognises it and tells its forms, the best one first. Nothing that
an adapter needs is imported before an object turns up that needs it: an object of a library that was never loaded
cannot exist.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from ..errors import SAMPError, SAMPTypeError
from ..transport.urls import file_url_to_path
from .images import adapt_array, adapt_hdu, adapt_hdulist, adapt_nddata
from .model import MessageFormat, Sendable, isinstance_by_name
from .sky import adapt_moc, adapt_position, adapt_spectrum, coverage_forms
from .tables import adapt_frame, adapt_table, adapt_tabular, adapt_votable, table_product

__all__ = ["SUPPORTED_TYPES", "as_votable", "file_or_url_as", "to_sendable"]

#: A URL of any scheme; one letter is a drive of Windows.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:", re.ASCII)
#: The parameter by which messages about such a thing name it.
_ID_KEYS = {"table": "table-id", "image": "image-id", "spectrum": "spectrum-id", "coverage": "coverage-id"}

#: What `send` takes, for error messages.
SUPPORTED_TYPES = (
    "Table, QTable, structured numpy array, VOTableFile, TableElement, anything with .votable or .to_table() (pyvo "
    "and astroquery results), pandas DataFrame, HDU, HDUList, CCDData, NDData, Cutout2D, numpy image (2-d array), "
    "Spectrum (specutils), MOC (mocpy), SkyCoord, path, URL"
)


def to_sendable(obj: Any) -> Sendable:
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
        from .files import detect_file  # noqa: PLC0415 - it needs this module

        try:
            return detect_file(obj)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise FileNotFoundError(_no_such_file(os.fspath(obj))) from None
    for adapter in _ADAPTERS:
        try:
            product = adapter(obj)
        except SAMPError:
            raise
        except Exception as error:  # of whatever library the object is of
            raise SAMPTypeError(
                f"{_describe_type(obj)} cannot be sent: what it holds cannot be had ({type(error).__name__}: {error})"
            ) from error
        if product is not None:
            return product
    raise SAMPTypeError(f"{_describe_type(obj)} cannot be sent. What can: {SUPPORTED_TYPES}.")


def file_or_url_as(place: str | os.PathLike[str], mtype: str) -> Sendable:
    """
    Take a file or URL for what its user says that it is; nothing of it is read.

    Its recipient may read what is unknown here: another format, another compression, a URL that only it reaches.

    Parameters
    ----------
    place : str or path
        Path or URL.
    mtype : str
        The MType by which it is to be sent.

    Returns
    -------
    Product
        The file or URL as it is.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    """
    text = os.fspath(place)
    kind = mtype.partition(".")[0]
    form = next(
        # Aladin is told by a script what to load
        (form for form in coverage_forms(None) if form.make_params is not None and form.mtype == mtype),
        MessageFormat(mtype, "", id_key=_ID_KEYS.get(kind)),
    )
    kind = kind if kind in _ID_KEYS else "file"
    path = Path((isinstance(place, str) and file_url_to_path(text)) or text).expanduser().absolute()
    if _is_there(path):
        url = None if path.is_file() else path.as_uri()
        return Sendable(kind, path.name, (form,), path=path if url is None else None, url=url)
    if isinstance(place, str) and _URL.match(text):
        name = PurePosixPath(unquote(re.split("[?#]", text)[0])).name
        return Sendable(kind, name if len(name) < 100 else "data", (form,), url=text)
    raise FileNotFoundError(_no_such_file(text))


def _is_there(path: Path) -> bool:
    """Whether a file or directory is there; a text that can be no path is the path of none."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a null byte in it, or more characters than a path may have
        return False


def _no_such_file(text: str) -> str:
    short = text if len(text) <= 200 else text[:200] + "..."  # somebody may have given the content of a file
    return f"There is no file {short!r}, and it is no URL either. What can be sent: {SUPPORTED_TYPES}."


def as_votable(obj: Any) -> tuple[Sendable, MessageFormat]:
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
    product = to_sendable(obj)
    form = _votable_form(product)
    if form is None and product.kind == "table":  # a file of another format
        from .fetching import local_copy  # noqa: PLC0415
        from .readers import read_table  # noqa: PLC0415

        with local_copy(product.url, product.path) as place:
            product = table_product(read_table(place), product.name)
        form = _votable_form(product)
    if form is None:
        raise SAMPTypeError(f"{product.name!r} is sent as {product.kind}, and that is no table")
    return product, form


def _votable_form(product: Sendable) -> MessageFormat | None:
    return next((form for form in product.formats if form.mtype == "table.load.votable"), None)


def _describe_type(obj: Any) -> str:
    if isinstance(obj, type):
        return f"The class {obj.__name__} itself"
    if isinstance_by_name(obj, "numpy", "ndarray"):
        return f"An array of {obj.ndim} dimensions and type {obj.dtype}"
    package = type(obj).__module__.partition(".")[0]
    return f"An object of type {'' if package == 'builtins' else package + '.'}{type(obj).__name__}"


#: In the order in which they are asked; the more particular come first.
_ADAPTERS: list[Callable[[Any], Sendable | None]] = [
    adapt_table, adapt_votable, adapt_frame, adapt_hdu, adapt_hdulist, adapt_position, adapt_moc, adapt_spectrum, adapt_nddata, adapt_array,
    adapt_tabular,
]  # fmt: skip
