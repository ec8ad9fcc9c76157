# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Adapters for images and for FITS files in memory, which may also contain tables."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from astropy.table import Table

from ..errors import SAMPTypeError, warn
from .detection import is_by_columns, is_description
from .headers import make_header
from .model import MessageFormat, Sendable, first_nonempty, isinstance_by_name, safe_getattr
from .readers import first_table
from .tables import sendable_table
from .votable_writer import write_votable


def _image(hdus: Callable[[], Any], name: str, size: int) -> Sendable:
    def write(file: BinaryIO) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VerifyWarning)
            try:
                hdus().writeto(file, output_verify="silentfix+ignore")
            except ValueError as error:
                if "closed file" not in str(error):
                    raise
                raise SAMPTypeError("The file of the HDUs was closed before their data were read: send the path of "
                                    "the file, or send the HDUs before it is closed") from error

    return Sendable("image", name or "image", (MessageFormat("image.load.fits", ".fits", write, "image-id"),), size)


def adapt_hdu(obj: Any) -> Sendable | None:
    """Return the formats of an HDU; None for any other object."""
    if not isinstance_by_name(obj, "astropy.io.fits.hdu.base", "_BaseHDU"):
        return None
    name = first_nonempty(obj.name.replace("PRIMARY", ""), obj.header.get("OBJECT"))
    if isinstance(obj, fits.BinTableHDU | fits.TableHDU) and not isinstance(obj, fits.CompImageHDU):
        return _hdu_table(obj, name)
    if obj.data is None:
        raise SAMPTypeError("An HDU without data cannot be sent")
    if isinstance(obj, fits.PrimaryHDU):
        return _image(lambda: fits.HDUList([obj]), name, int(obj.data.nbytes))
    return _image(lambda: fits.HDUList([fits.PrimaryHDU(obj.data, _primary(obj.header))]), name, int(obj.data.nbytes))


def _primary(header: Any) -> Any:
    """Return the header of an extension without the keywords that only extensions have."""
    header = header.copy()
    for key in ("XTENSION", "PCOUNT", "GCOUNT", "INHERIT"):
        header.remove(key, ignore_missing=True)
    return header


def _hdu_table(hdu: Any, name: str) -> Sendable:
    formats = (
        MessageFormat(
            "table.load.fits",
            ".fits",
            lambda file: fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(file, output_verify="silentfix+ignore"),
            "table-id",
        ),
        MessageFormat("table.load.votable", ".vot", lambda file: write_votable(Table.read(hdu), file), "table-id"),
    )
    return Sendable("table", name or "table", formats, int(hdu.size), count=lambda: int(hdu.header["NAXIS2"]))


def adapt_hdulist(obj: Any) -> Sendable | None:
    """Return the formats of an HDUList; None for any other object."""
    if not isinstance(obj, fits.HDUList):
        return None
    hdus = [hdu for hdu in obj if not is_description(hdu.header)]
    first = next((hdu for hdu in hdus if hdu.size or getattr(hdu, "data", None) is not None), None)
    if first is None:
        raise SAMPTypeError("An HDUList without data cannot be sent")
    file_name = Path(obj.filename()).name if obj.filename() else ""
    name = first_nonempty(file_name, obj[0].header.get("OBJECT"), first.name)
    size = sum(int(hdu.size) for hdu in obj)
    if first.is_image:
        return _image(lambda: obj, name, size)
    if is_by_columns(obj[0].header) or is_by_columns(first.header):
        return sendable_table(first_table(obj), name)
    formats = (
        MessageFormat("table.load.fits", ".fits", _image(lambda: obj, name, size).formats[0].write, "table-id"),
        MessageFormat("table.load.votable", ".vot", lambda file: write_votable(first_table(obj), file), "table-id"),
    )
    return Sendable("table", name or "table", formats, size, count=lambda: len(first_table(obj)))


def adapt_nddata(obj: Any) -> Sendable | None:
    """Return the formats of an image: CCDData, NDData, Cutout2D or any object with pixels and a WCS; else None."""
    is_nddata = isinstance_by_name(obj, "astropy.nddata", "NDDataBase")
    is_image = isinstance(safe_getattr(obj, "data"), np.ndarray) and hasattr(obj, "wcs")  # like a Cutout2D
    if safe_getattr(obj, "spectral_axis") is not None or not (is_nddata or is_image):
        return None
    pixels = obj.data
    dimensions, kind = np.ndim(pixels), np.asarray(np.ma.getdata(pixels)).dtype
    if np.size(pixels) == 0:
        raise SAMPTypeError(f"{type(obj).__name__} without pixels cannot be sent")
    if dimensions < 2:
        raise SAMPTypeError(f"{type(obj).__name__} with {dimensions}-dimensional data is not an image, which is 2-d")
    if kind.kind not in "biuf":
        raise SAMPTypeError(f"{type(obj).__name__} with data of type {kind} is not an image: FITS has no such pixels")
    meta = safe_getattr(obj, "meta")
    meta = meta if isinstance(meta, Mapping) else {}

    def hdus() -> Any:
        header = make_header(meta, safe_getattr(obj, "wcs"))
        unit = safe_getattr(obj, "unit") or safe_getattr(pixels, "unit")
        if unit is not None:
            header["BUNIT"] = unit.to_string() if hasattr(unit, "to_string") else str(unit)
        if safe_getattr(obj, "uncertainty") is not None:
            warn("Image viewers do not load uncertainties: the image is sent without them")
        masks = (safe_getattr(obj, "mask"), safe_getattr(pixels, "mask"))
        mask = next((mask for mask in masks if mask is not None), None)
        return fits.HDUList([fits.PrimaryHDU(_pixels(_unmasked(pixels), mask), header)])

    return _image(hdus, first_nonempty(meta.get("name"), meta.get("OBJECT")), int(np.asarray(pixels).nbytes))


def _unmasked(array: Any) -> Any:
    """Return the data of a masked array (of numpy or astropy) as a plain array."""
    return np.asarray(np.ma.getdata(safe_getattr(array, "unmasked") if hasattr(array, "unmasked") else array))


def adapt_array(obj: Any) -> Sendable | None:
    """Return the formats of a numpy array that is an image or a table; None for any other object."""
    if not isinstance(obj, np.ndarray):
        return None
    if obj.dtype.names is not None and obj.ndim == 1:
        return sendable_table(Table(obj))
    if obj.ndim < 2 or obj.dtype.kind not in "biuf":
        return None
    if obj.size == 0:
        raise SAMPTypeError(f"An image without pixels (of shape {obj.shape}) cannot be sent")

    def hdus() -> Any:
        header = fits.Header()
        if safe_getattr(obj, "unit") is not None:
            header["BUNIT"] = safe_getattr(obj, "unit").to_string()
        return fits.HDUList([fits.PrimaryHDU(_pixels(_unmasked(obj), safe_getattr(obj, "mask")), header)])

    return _image(hdus, "", int(obj.nbytes))


def _pixels(data: Any, mask: Any) -> Any:
    """Return the pixels in a type that FITS supports, with NaN for masked pixels."""
    kind, size = data.dtype.kind, data.dtype.itemsize
    if mask is not None and np.any(mask):
        wide = size > 4 or (size > 2 and kind in "iu")
        return np.where(mask, np.nan, data).astype("f8" if wide else "f4")
    changed = {"b1": "u1", "i1": "i2", "f2": "f4", "f12": "f8", "f16": "f8"}.get(f"{kind}{size}")
    return data if changed is None else data.astype(changed)
