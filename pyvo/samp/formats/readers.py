# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Make objects from messages: fetch and read the file at the URL in ``table.load.votable`` and similar messages.

Objects are read completely, because the sender may remove its file as soon as it gets the response.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from astropy.io import fits
from astropy.table import Table

from ..errors import SAMPClientError, warn, without_warnings
from ..protocol import parse_float
from ..temporary_files import progress_bar
from .detection import PEEK_SIZE, is_description, is_fits, is_votable, open_decompressed, peek_at, text_formats
from .fetching import Download, Place, complete_file, open_place
from .fits_tables import open_hdus, table_of_hdus
from .model import MessageParams, RasterImage, Sender
from .tolerant_votable import describe_table, read_votable_with_astropy
from .votable_reader import read_votable

log = logging.getLogger(__name__)


def read_message(
    mtype: str, params: Mapping[str, Any], sender: Sender, download: Download | None = None
) -> Any:
    """
    Make an object from a message, with the attributes ``sender``, ``name`` and ``mtype``.

    If the MType is unknown, return `MessageParams`. ``download`` has the same meaning as in `open_place`.
    """
    kind, _, rest = mtype.partition(".")
    name = str(params.get("name") or "")
    if mtype == "coord.pointAt.sky":
        return attach_source(read_position(params), sender, name, mtype)
    if rest.partition(".")[0] != "load" or kind not in _READERS:
        return attach_source(MessageParams(params), sender, name, mtype)
    url = params.get("url")
    if not isinstance(url, str) or not url:
        raise SAMPClientError(f"The message {mtype} has no parameter 'url'")
    read = _READERS[kind]
    if kind == "image" and not mtype.endswith("fits"):
        read = _read_raster_image
    with open_place(url.strip(), download=download) as place:
        try:
            with without_warnings():  # about deviations from the standard in a file of another program
                obj = read(place if read is read_table else complete_file(place), url.strip())
        except Exception as error:
            raise SAMPClientError(f"The content of {url} cannot be read for {mtype}: {error}") from error
    return attach_source(obj, sender, name or str(params.get(f"{kind}-id") or ""), mtype)


def attach_source(obj: Any, sender: Sender, name: str, mtype: str) -> Any:
    """
    Set the attributes of an object that describe its source.

    Do not use `setattr`, because some classes treat it as a change of their data.
    """
    obj.__dict__.update(sender=sender, name=name, mtype=mtype)
    return obj


def read_position(params: Mapping[str, Any]) -> Any:
    """Make a SkyCoord (ICRS) from ``ra`` and ``dec`` in degrees."""
    from astropy.coordinates import SkyCoord  # noqa: PLC0415

    missing = [key for key in ("ra", "dec") if key not in params]
    if missing:
        raise SAMPClientError(f"The position has no {' and no '.join(missing)}")
    ra, dec = (_degrees(key, params[key]) for key in ("ra", "dec"))
    return SkyCoord(ra, dec, unit="deg")


def _degrees(key: str, value: Any) -> float:
    try:
        return parse_float(str(value))
    except ValueError as error:
        raise SAMPClientError(f"The position's {key} is invalid: {error}") from error


def read_table(place: Place, url: str = "") -> Any:
    """
    Read the first table of a file in any known format. `url` is the base of relative URLs in the file.

    A VOTable is read while the file arrives.
    """
    peek = peek_at(place)
    if is_votable(peek):
        read_otherwise = partial(read_votable_with_astropy, url=url)
        if not isinstance(place, Path):
            return read_votable(place, read_otherwise)
        with progress_bar(place.stat().st_size, None) as note:
            return read_votable(place, read_otherwise, note)
    beginning, path = peek(PEEK_SIZE), complete_file(place)
    if is_fits(beginning):
        return read_fits_table(path)
    table = read_other_table(path, text_formats(beginning, path.name))
    if table is None:
        raise SAMPClientError("The file is neither a FITS file nor a VOTable nor another table that astropy reads")
    return table


def read_fits_table(place: Path) -> Table:
    """
    Read the first table of a FITS file; warn if there are more.

    Missing logical values are masked, and non-ASCII text is decoded. The description that STIL (TOPCAT, STILTS) writes
    into the primary HDU is used, and a table that STIL wrote by columns (``colfits``) is converted to rows.
    """
    with without_warnings(), open_hdus(place) as hdus:
        return first_table(hdus)


def first_table(hdus: Any) -> Table:
    """Read the first table among HDUs; see `read_fits_table`."""
    table = table_of_hdus(hdus)
    if is_description(hdus[0].header) and hdus[0].data is not None:
        try:
            with without_warnings():
                describe_table(table, hdus[0].data.tobytes().rstrip(b"\0 "))
        except Exception as error:  # the description may contain anything
            warn(f"The description of the table in the form of a VOTable is left out: {error}")
    return table


def read_other_table(path: Path, formats: list[tuple[str, str]]) -> Any:
    """Read a table in the first matching format (astropy's name and the encoding); return None if none matches."""
    for name, encoding in formats:
        try:
            with without_warnings():
                if name == "tst":
                    table = _read_tst(path, encoding)
                else:
                    table = Table.read(path, format=name, **({"encoding": encoding} if encoding else {}))
        except (ValueError, TypeError, OSError, ImportError, KeyError, IndexError) as error:
            log.debug("%s is not %s in %s: %s", path.name, name, encoding, error)
            continue
        # any text can be read as a table of one column, and any line as the header of a table without rows
        if name != "ascii" or (len(table.colnames) > 1 and len(table)):
            return table
    return None


def _read_tst(path: Path, encoding: str) -> Any:
    """Read a Tab-Separated Table, in which the column names precede a line of hyphens."""
    with path.open("rb") as file:
        text = open_decompressed(file).read().decode(encoding)
    lines = text.partition("\n[EOD]")[0].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("-") and not line.strip("-\t"))
    return Table.read([lines[start - 1], *lines[start + 1 :]], format="ascii.tab")


def read_image(path: Path, _url: str = "") -> Any:
    """Read a FITS file into memory."""
    with fits.open(path, memmap=False, lazy_load_hdus=False) as hdus:
        for hdu in hdus:
            hdu.data  # noqa: B018 - the first access reads the data
        return hdus


def _read_raster_image(path: Path, _url: str = "") -> RasterImage:
    return RasterImage(path.read_bytes())


def _read_moc(path: Path, _url: str = "") -> Any:
    try:
        mocpy = import_module("mocpy")
    except ImportError:
        return read_image(path)
    return mocpy.MOC.from_fits(path)


def _read_spectrum(path: Path, url: str = "") -> Any:
    """Read a spectrum with specutils if it is installed and supports the file, otherwise as a table."""
    try:
        specutils = import_module("specutils")
    except ImportError:
        return read_table(path, url)
    kind = getattr(specutils, "Spectrum", None) or specutils.Spectrum1D
    try:
        table = read_table(path, url)
    except Exception:
        return kind.read(path)
    if not {"spectral_axis", "flux"} <= set(table.colnames):
        try:
            return kind.read(path)
        except Exception:
            return table
    from astropy.nddata import StdDevUncertainty  # noqa: PLC0415 - importing it takes long, and spectra are rare

    mask = getattr(table["flux"], "mask", None)  # passed separately, because a spectrum has its own mask
    plain = table.filled(float("nan")) if table.has_masked_columns else table
    error = StdDevUncertainty(plain["uncertainty"].quantity) if "uncertainty" in plain.colnames else None
    axis, flux = (plain[name].quantity for name in ("spectral_axis", "flux"))
    return kind(spectral_axis=axis, flux=flux, uncertainty=error, mask=mask, meta=dict(table.meta))


_READERS: dict[str, Any] = {"table": read_table, "image": read_image, "spectrum": _read_spectrum, "coverage": _read_moc}
