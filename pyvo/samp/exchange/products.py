# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What an object is to other programs, and the forms in which it can be sent.

Each kind of object has an adapter, a function that recognises it and tells its forms, the best one first. Nothing that
an adapter needs is imported before an object turns up that needs it: an object of a library that was never loaded
cannot exist.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import SAMPTypeError
from ..url_book import local_path
from .votable_writer import flat_table, write_votable

__all__ = ["SENDABLE", "Form", "Product", "product_of"]

#: What `send` takes, for error messages.
SENDABLE = (
    "Table, QTable, structured numpy array, VOTableFile, anything with .votable or .to_table() (pyvo and astroquery "
    "results), pandas DataFrame, HDU, HDUList, CCDData, NDData, numpy image (2-d array), Spectrum (specutils), MOC "
    "(mocpy), SkyCoord, path, URL"
)


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


def _described(obj: Any) -> str:
    if _is(obj, "numpy", "ndarray"):
        return f"An array of {obj.ndim} dimensions and type {obj.dtype}"
    package = type(obj).__module__.partition(".")[0]
    return f"An object of type {'' if package == 'builtins' else package + '.'}{type(obj).__name__}"


def _is(obj: Any, module: str, *names: str) -> bool:
    """Whether an object is of one of some classes of a module, which need not be loaded to ask."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return False
    return isinstance(obj, tuple(kind for name in names if (kind := getattr(loaded, name, None)) is not None))


def _text(*candidates: object) -> str:
    """The first that is some text."""
    return next((str(text) for text in candidates if isinstance(text, str) and text.strip()), "")


# Tables


def table_product(table: Any, name: str = "") -> Product:
    """Tell the forms of an astropy table."""
    name = _text(name, table.meta.get("name"), table.meta.get("ID"), table.meta.get("EXTNAME"))
    forms = (
        Form("table.load.votable", ".vot", lambda file: write_votable(table, file), "table-id"),
        Form("table.load.fits", ".fits", lambda file: _write_fits_table(table, file), "table-id"),
    )
    size = sum(int(getattr(column, "nbytes", 8 * len(table))) for column in table.columns.values())
    return Product("table", name or "table", forms, size)


def _write_fits_table(table: Any, file: BinaryIO) -> None:
    from astropy.io import fits  # noqa: PLC0415
    from astropy.units import UnitsWarning  # noqa: PLC0415

    with warnings.catch_warnings():
        # long keywords, and units that FITS does not know: better kept than refused
        warnings.simplefilter("ignore", (fits.verify.VerifyWarning))
        warnings.simplefilter("ignore", UnitsWarning)
        flat_table(table).write(file, format="fits")


def _table(obj: Any) -> Product | None:
    if _is(obj, "astropy.table", "Table"):
        return table_product(obj)
    if _is(obj, "astropy.table", "Row"):
        return table_product(obj.table[obj.index : obj.index + 1])
    return None


def _votable(obj: Any) -> Product | None:
    document = obj if _is(obj, "astropy.io.votable.tree", "VOTableFile") else _attribute(obj, "votable")
    if not _is(document, "astropy.io.votable.tree", "VOTableFile"):
        if not _is(obj, "astropy.io.votable.tree", "TableElement"):
            return None
        return table_product(obj.to_table(use_names_over_ids=True), _text(obj.name, obj.ID))
    first = next(iter(document.iter_tables()), None)
    name = _text(getattr(first, "name", ""), getattr(first, "ID", ""), document.description)
    size = int(getattr(getattr(first, "array", None), "nbytes", 0))
    forms = [Form("table.load.votable", ".vot", lambda file: _write_document(document, file), "table-id")]
    if first is not None:
        forms.append(
            Form(
                "table.load.fits",
                ".fits",
                lambda file: _write_fits_table(first.to_table(use_names_over_ids=True), file),
                "table-id",
            )
        )
    return Product("table", name or "table", forms, size)


def _write_document(document: Any, file: BinaryIO) -> None:
    """Write a whole VOTable as it is, with its PARAM, INFO and the rest."""
    from astropy.io.votable.exceptions import VOWarning  # noqa: PLC0415
    from astropy.units import UnitsWarning  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VOWarning)
        warnings.simplefilter("ignore", UnitsWarning)
        version = tuple(int(part) for part in str(document.version).split("."))
        if version >= (1, 3):
            document.to_xml(file, tabledata_format="binary2")
        else:
            document.to_xml(file)


def _attribute(obj: Any, name: str) -> Any:
    """An attribute that an object of unknown kind may have; what fails is none."""
    if isinstance(obj, type):
        return None
    try:
        return getattr(obj, name, None)
    except Exception:
        return None


def _frame(obj: Any) -> Product | None:
    if not _is(obj, "pandas", "DataFrame", "Series"):
        return None
    from astropy.table import Table  # noqa: PLC0415

    frame = obj.to_frame() if _is(obj, "pandas", "Series") else obj
    default = type(frame.index).__name__ == "RangeIndex" and frame.index.name is None
    if not default:
        frame = frame.reset_index()
    frame = frame.rename(columns=str)
    return table_product(Table.from_pandas(frame), _text(obj.attrs.get("name")))


def _tabular(obj: Any) -> Product | None:
    convert = _attribute(obj, "to_table")
    if not callable(convert):
        return None
    table = convert()
    return table_product(table) if _is(table, "astropy.table", "Table") else None


# Images


def _image(hdus: Callable[[], Any], name: str, size: int) -> Product:
    def write(file: BinaryIO) -> None:
        from astropy.io.fits.verify import VerifyWarning  # noqa: PLC0415

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VerifyWarning)
            hdus().writeto(file, output_verify="silentfix+ignore")

    return Product("image", name or "image", (Form("image.load.fits", ".fits", write, "image-id"),), size)


def _hdu(obj: Any) -> Product | None:
    if not _is(obj, "astropy.io.fits.hdu.base", "_BaseHDU"):
        return None
    from astropy.io import fits  # noqa: PLC0415

    name = _text(obj.name.replace("PRIMARY", ""), obj.header.get("OBJECT"))
    if isinstance(obj, fits.BinTableHDU | fits.TableHDU) and not isinstance(obj, fits.CompImageHDU):
        return _hdu_table(obj, name)
    if obj.data is None:
        raise SAMPTypeError("An HDU without data cannot be sent")
    if isinstance(obj, fits.PrimaryHDU):
        return _image(lambda: fits.HDUList([obj]), name, int(obj.data.nbytes))
    return _image(lambda: fits.HDUList([fits.PrimaryHDU(obj.data, _primary(obj.header))]), name, int(obj.data.nbytes))


def _primary(header: Any) -> Any:
    """The header of an extension without what only extensions have."""
    header = header.copy()
    for key in ("XTENSION", "PCOUNT", "GCOUNT", "INHERIT"):
        header.remove(key, ignore_missing=True)
    return header


def _hdu_table(hdu: Any, name: str) -> Product:
    from astropy.io import fits  # noqa: PLC0415
    from astropy.table import Table  # noqa: PLC0415

    forms = (
        Form(
            "table.load.fits",
            ".fits",
            lambda file: fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(file, output_verify="silentfix+ignore"),
            "table-id",
        ),
        Form("table.load.votable", ".vot", lambda file: write_votable(Table.read(hdu), file), "table-id"),
    )
    return Product("table", name or "table", forms, int(hdu.size))


def _hdulist(obj: Any) -> Product | None:
    if not _is(obj, "astropy.io.fits", "HDUList"):
        return None
    first = next((hdu for hdu in obj if hdu.size or getattr(hdu, "data", None) is not None), None)
    if first is None:
        raise SAMPTypeError("An HDUList without data cannot be sent")
    file_name = Path(obj.filename()).name if obj.filename() else ""
    name = _text(file_name, obj[0].header.get("OBJECT"), first.name)
    size = sum(int(hdu.size) for hdu in obj)
    if first.is_image:
        return _image(lambda: obj, name, size)
    table = _hdu_table(first, name)
    fits_form = _image(lambda: obj, name, size).forms[0]
    return Product(
        "table", name, (Form("table.load.fits", ".fits", fits_form.write, "table-id"), *table.forms[1:]), size
    )


def _nddata(obj: Any) -> Product | None:
    if not _is(obj, "astropy.nddata", "NDDataBase") or _attribute(obj, "spectral_axis") is not None:
        return None
    import numpy as np  # noqa: PLC0415

    if np.ndim(obj.data) < 2:
        return None

    def hdus() -> Any:
        from astropy.io import fits  # noqa: PLC0415

        header = fits.Header()
        for key, value in dict(obj.meta).items():
            if isinstance(value, str | int | float | bool):
                header[key] = value
        if obj.wcs is not None and hasattr(obj.wcs, "to_header"):
            # what else describes another coordinate system would contradict it
            header.update(obj.wcs.to_header(relax=True))
        if obj.unit is not None:
            header["BUNIT"] = obj.unit.to_string()
        data = _pixels(np.asarray(obj.data))
        if obj.mask is not None and np.any(obj.mask):
            data = np.where(obj.mask, np.nan, data).astype("f8" if data.dtype.itemsize > 4 else "f4")
        return fits.HDUList([fits.PrimaryHDU(data, header)])

    return _image(hdus, _text(obj.meta.get("name"), obj.meta.get("OBJECT")), int(np.asarray(obj.data).nbytes))


def _array(obj: Any) -> Product | None:
    if not _is(obj, "numpy", "ndarray"):
        return None
    import numpy as np  # noqa: PLC0415

    if obj.dtype.names is not None and obj.ndim == 1:
        from astropy.table import Table  # noqa: PLC0415

        return table_product(Table(obj))
    if obj.ndim < 2 or obj.dtype.kind not in "biuf":
        return None

    def hdus() -> Any:
        from astropy.io import fits  # noqa: PLC0415

        filled = obj
        if _is(obj, "numpy.ma", "MaskedArray"):
            filled = np.ma.filled(obj.astype("f8"), np.nan)
        header = fits.Header()
        if getattr(obj, "unit", None) is not None:
            header["BUNIT"] = obj.unit.to_string()
        return fits.HDUList([fits.PrimaryHDU(_pixels(np.asarray(filled)), header)])

    return _image(hdus, "", int(obj.nbytes))


def _pixels(data: Any) -> Any:
    """The pixels in a type that FITS has."""
    changed = {"b1": "u1", "f2": "f4", "f16": "f8"}.get(f"{data.dtype.kind}{data.dtype.itemsize}")
    return data if changed is None else data.astype(changed)


# Spectra, coverages, positions


def _spectrum(obj: Any) -> Product | None:
    axis, flux = _attribute(obj, "spectral_axis"), _attribute(obj, "flux")
    if axis is None or flux is None or getattr(flux, "ndim", 0) != 1:
        return None
    from astropy.table import QTable  # noqa: PLC0415

    table = QTable([axis, flux], names=["spectral_axis", "flux"])
    uncertainty = _attribute(obj, "uncertainty")
    if uncertainty is not None:
        error = uncertainty.represent_as(sys.modules["astropy.nddata"].StdDevUncertainty)
        table["uncertainty"] = error.quantity if error.unit is not None else error.array * flux.unit
    meta = getattr(obj, "meta", None) or {}
    name = _text(meta.get("name"), meta.get("OBJECT")) or "spectrum"
    table.meta.update({"name": name, "utype": "spec:Spectrum"})
    write = lambda file: write_votable(table, file)  # noqa: E731 - of two forms
    description = {"Access.Format": "application/x-votable+xml", "Target.Name": name}
    forms = (
        Form("spectrum.load.ssa-generic", ".vot", write, "spectrum-id", {"meta": description}),
        *table_product(table).forms,
    )
    return Product("spectrum", name, forms, int(flux.nbytes) * 2)


def _moc(obj: Any) -> Product | None:
    if not _is(obj, "mocpy", "MOC"):
        return None

    def write(file: BinaryIO) -> None:
        obj.serialize(format="fits").writeto(file)

    return Product("coverage", "MOC", coverage_forms(write))


def coverage_forms(write: Callable[[BinaryIO], object] | None) -> tuple[Form, ...]:
    """
    Tell the forms of a coverage.

    Parameters
    ----------
    write : callable or None
        Writes its FITS file, unless it is in one.
    """
    return (
        Form("coverage.load.moc.fits", ".fits", write, "coverage-id"),
        # Aladin 12 does not subscribe to that, and never answers when it gets a coverage by another message
        Form("script.aladin.send", ".fits", write, make_params=_load_script),
    )


def _load_script(url: str, name: str) -> dict[str, Any]:
    place = local_path(url) or url
    plane = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "coverage"
    return {"script": f"{plane}=load {place}"}


def _position(obj: Any) -> Product | None:
    if not _is(obj, "astropy.coordinates", "SkyCoord", "BaseCoordinateFrame"):
        return None
    from astropy.coordinates import SkyCoord  # noqa: PLC0415

    coordinates = SkyCoord(obj)
    if not coordinates.isscalar and coordinates.size != 1:
        from astropy.table import QTable  # noqa: PLC0415

        return table_product(QTable({"position": coordinates.ravel()}), "positions")
    ra, dec = (float(angle.deg.ravel()[0]) for angle in (coordinates.icrs.ra, coordinates.icrs.dec))
    return Product("position", "position", (Form("coord.pointAt.sky", "", params={"ra": ra, "dec": dec}),))


#: In the order in which they are asked; the more particular come first.
_ADAPTERS: list[Callable[[Any], Product | None]] = [
    _table, _votable, _frame, _hdu, _hdulist, _position, _moc, _spectrum, _nddata, _array, _tabular,
]  # fmt: skip
