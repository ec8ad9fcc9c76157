# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Adapters for tables and for objects that can be converted to tables."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO

from astropy.io.votable.exceptions import VOWarning
from astropy.io.votable.tree import Resource, TableElement, VOTableFile
from astropy.table import Row, Table
from astropy.units import UnitsWarning

from ..errors import warn
from .fits_tables import is_plain, write_fits_plus, write_fits_table
from .model import MessageFormat, Sendable, first_nonempty, isinstance_by_name, safe_getattr
from .tolerant_votable import element_as_table
from .votable_writer import XMLText, write_votable

#: Attributes of a document, and of each RESOURCE in it, other than tables and RESOURCEs.
_AROUND_TABLES = ("infos", "coordinate_systems", "time_systems", "params", "groups", "links")
_writing = threading.Lock()
#: Minimum size in bytes of a table that is sent to TOPCAT in the format that TOPCAT reads fastest.
LARGE = 1_000_000


def sendable_table(table: Any, name: str = "") -> Sendable:
    """Return the formats of an astropy table, to which all tables in memory are converted."""
    name = first_nonempty(name, table.meta.get("name"), table.meta.get("ID"), table.meta.get("EXTNAME"))
    size = sum(int(getattr(column, "nbytes", 8 * len(table))) for column in table.columns.values())

    def write_fits(file: BinaryIO) -> None:
        if is_for_topcat():
            write_fits_plus(table, file)
        else:
            write_fits_table(table, file)

    @cache
    def is_for_topcat() -> bool:
        return size >= LARGE and is_plain(table)

    formats = (
        MessageFormat("table.load.votable", ".vot", lambda file: write_votable(table, file), "table-id"),
        MessageFormat("table.load.fits", ".fits", write_fits, "table-id",
             is_better_for=lambda program: program.lower() == "topcat" and is_for_topcat()),
    )
    return Sendable("table", name or "table", formats, size, count=lambda: len(table))


def adapt_table(obj: Any) -> Sendable | None:
    """Return the formats of an astropy table or row; None for any other object."""
    if isinstance(obj, Table):
        return sendable_table(obj)
    if isinstance(obj, Row):
        return sendable_table(obj.table[obj.index : obj.index + 1])
    return None


def adapt_votable(obj: Any) -> Sendable | None:
    """Return the formats of a VOTable, or of an object with an attribute ``votable``; None for any other object."""
    document = obj if isinstance(obj, VOTableFile) else safe_getattr(obj, "votable")
    if not isinstance(document, VOTableFile):
        if not isinstance(obj, TableElement):
            return None
        if obj.ref is not None:  # the columns are defined in another table
            return sendable_table(element_as_table(obj), first_nonempty(obj.name, obj.ID))
        document = _document_with(obj)
    tables = list(document.iter_tables())
    first = tables[0] if tables else None
    name = first_nonempty(getattr(first, "name", ""), getattr(first, "ID", ""), document.description)
    size = sum(int(getattr(table.array, "nbytes", 0)) for table in tables)
    formats = [MessageFormat("table.load.votable", ".vot", lambda file: _write_document(document, file), "table-id")]
    if first is not None:
        formats.append(MessageFormat("table.load.fits", ".fits", lambda file: _write_first(tables, file), "table-id"))
    return Sendable("table", name or "table", formats, size, count=None if first is None else lambda: len(first.array))


def _write_first(tables: list[Any], file: BinaryIO) -> None:
    """Write the first of several tables as FITS."""
    if len(tables) > 1:
        warn(f"Only the first of the {len(tables)} tables of the document is written to the FITS file")
    write_fits_table(element_as_table(tables[0]), file)


def _document_with(element: Any) -> Any:
    """Make a document with one table and all elements around it in the document to which it belongs."""
    whole = safe_getattr(element, "_votable")
    document = VOTableFile(version=str(safe_getattr(whole, "version") or "1.4"))
    chain = _resources_around(element, safe_getattr(whole, "resources") or [])
    place: Any = document
    for old in [whole, *chain] if chain else ():
        if old is not whole:
            new = Resource(name=old.name, ID=old.ID, utype=old.utype, type=old.type, **old.extra_attributes)
            # RESOURCEs without tables, for example the description of a service that needs an identifier from the table
            new.resources.extend(other for other in old.resources if not any(other.iter_tables()))
            place.resources.append(new)
            place = new
        place.description = old.description
        for kind in _AROUND_TABLES:
            getattr(place, kind, []).extend(getattr(old, kind, ()))
    if not chain:
        place = Resource()
        document.resources.append(place)
    place.tables.append(element)
    return document


def _resources_around(element: Any, resources: Iterable[Any]) -> list[Any]:
    """Return the RESOURCEs that contain a table, the outermost first; an empty list if there are none."""
    for resource in resources:
        if any(table is element for table in resource.tables):
            return [resource]
        inner = _resources_around(element, resource.resources)
        if inner:
            return [resource, *inner]
    return []


def _write_document(document: Any, file: BinaryIO) -> None:
    """Write a whole VOTable, with its PARAM, INFO and other elements."""
    xml = XMLText(file)
    with warnings.catch_warnings(), _names_of_resources(document.resources):
        warnings.simplefilter("ignore", VOWarning)
        warnings.simplefilter("ignore", UnitsWarning)
        document.to_xml(xml, tabledata_format=_data_format(document))
    xml.warn()


@contextmanager
def _names_of_resources(resources: Iterable[Any]) -> Iterator[None]:
    """Store the names of RESOURCEs, which astropy 8.0 does not write, as extra attributes, which it does write."""
    named = []
    with _writing:
        try:
            waiting = list(resources)
            for resource in waiting:
                waiting += resource.resources
                if resource.name and "name" not in resource.extra_attributes:
                    resource.extra_attributes["name"] = resource.name
                    named.append(resource)
            yield
        finally:
            for resource in named:
                del resource.extra_attributes["name"]


def _data_format(document: Any) -> str | None:
    """Return the format in which astropy writes the rows without loss; None for the original format."""
    version = tuple(int(part) for part in str(document.version).split("."))
    cells = ((field, table.array[field.ID]) for table in document.iter_tables() for field in table.fields)
    if not all(_fits_binary(field, column) for field, column in cells):
        return "tabledata"
    return "binary2" if version >= (1, 3) else None


def _fits_binary(field: Any, column: Any) -> bool:
    """
    Return whether astropy writes a column correctly in binary form.

    Astropy writes variable-length arrays in the type in which it stores them, which may not be the type of the field.
    Fields of type ``char`` cannot hold non-ASCII text, and ``unicodeChar`` cannot hold characters of more than 16 bits.
    """
    if field.datatype not in {"char", "unicodeChar"}:
        return not str(field.arraysize or "").endswith("*")
    is_wide = field.datatype == "unicodeChar"
    texts = (text for text in column if isinstance(text, str))
    return all(text.isascii() or (is_wide and _is_in_16_bits(text)) for text in texts)


def _is_in_16_bits(text: str) -> bool:
    return all(character < "\ud800" or "\udfff" < character <= "\uffff" for character in text)


def adapt_frame(obj: Any) -> Sendable | None:
    """Return the formats of a pandas DataFrame or Series; None for any other object."""
    if not isinstance_by_name(obj, "pandas", "DataFrame", "Series"):
        return None
    frame = obj.to_frame() if isinstance_by_name(obj, "pandas", "Series") else obj
    count = frame.index.nlevels
    indices = {
        name if name is not None else ("index" if count == 1 else f"level_{level}"): frame.index.get_level_values(level)
        for level, name in enumerate(frame.index.names)
    }
    if type(frame.index).__name__ == "RangeIndex" and frame.index.name is None:
        indices = {}
    names = _unique([*indices, *frame.columns])
    frame = frame.reset_index(drop=True)
    frame.columns = names[len(indices) :]
    for name, values in reversed(list(zip(names, indices.values(), strict=False))):
        frame.insert(0, name, values)
    for name in names:
        if safe_getattr(frame[name].dtype, "tz") is not None:
            frame[name] = frame[name].dt.tz_convert("UTC").dt.tz_localize(None)
    return sendable_table(Table.from_pandas(frame), first_nonempty(obj.attrs.get("name")))


def _unique(labels: Iterable[Any]) -> list[str]:
    """Make unique column names from labels of any type, such as tuples, the labels of columns with several levels."""
    names: list[str] = []
    for label in labels:
        parts = label if isinstance(label, tuple) else (label,)
        name = ".".join(str(part) for part in parts if part != "") or "column"
        number = 2
        unique = name
        while unique in names:
            unique, number = f"{name}_{number}", number + 1
        names.append(unique)
    return names


def adapt_tabular(obj: Any) -> Sendable | None:
    """Return the formats of an object with a method ``to_table``; None for any other object."""
    convert = safe_getattr(obj, "to_table")
    if not callable(convert):
        return None
    table = convert()
    return sendable_table(table) if isinstance(table, Table) else None
