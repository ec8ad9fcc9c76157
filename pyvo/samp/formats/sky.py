# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Adapters for spectra, coverages and positions."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from astropy.table import QTable
from astropy.utils.masked import Masked

from ..errors import SAMPTypeError, warn
from ..transport.urls import file_url_to_local_path
from .headers import is_structural_keyword
from .model import MessageFormat, Sendable, first_nonempty, isinstance_by_name, safe_getattr
from .tables import sendable_table
from .votable_writer import write_votable


def adapt_spectrum(obj: Any) -> Sendable | None:
    """Return the formats of an object with a spectral axis and a flux; None for any other object."""
    axis, flux = safe_getattr(obj, "spectral_axis"), safe_getattr(obj, "flux")
    dimensions = getattr(flux, "ndim", 0)
    if axis is None or flux is None or not dimensions:
        return None
    if dimensions > 1:
        raise SAMPTypeError(f"{type(obj).__name__} with a flux of {dimensions} dimensions cannot be sent: send each "
                            "spectrum separately")  # fmt: skip
    mask = safe_getattr(obj, "mask")
    table = QTable([axis, flux if mask is None else Masked(flux, mask=mask)], names=["spectral_axis", "flux"])
    uncertainty = safe_getattr(obj, "uncertainty")
    if uncertainty is not None:
        error = uncertainty.represent_as(sys.modules["astropy.nddata"].StdDevUncertainty)
        table["uncertainty"] = error.quantity if error.unit is not None else error.array * flux.unit
    meta = getattr(obj, "meta", None) or {}
    known, left_out = _plain(meta)
    table.meta.update(known)
    name = first_nonempty(meta.get("name"), meta.get("OBJECT"), known.get("OBJECT")) or "spectrum"
    table.meta.update({"name": name, "utype": "spec:Spectrum"})

    def write(file: BinaryIO) -> None:
        if left_out:
            warn(f"A table cannot hold all metadata of the spectrum; it is sent without {', '.join(left_out)}")
        write_votable(table, file)

    description = {"Access.Format": "application/x-votable+xml", "Target.Name": name}
    formats = (
        MessageFormat("spectrum.load.ssa-generic", ".vot", write, "spectrum-id", {"meta": description}),
        *sendable_table(table).formats,
    )
    return Sendable("spectrum", name, formats, int(flux.nbytes) * 2)


def _plain(meta: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the metadata that a table can hold, including those of a nested header, and the names of the others."""
    known: dict[str, Any] = {}
    left_out: list[str] = []
    for key, value in meta.items():
        if isinstance(value, str | int | float | np.generic):
            known[str(key)] = value
        elif key == "header" and isinstance(value, Mapping):
            inner, also = _plain({name: value[name] for name in value if not is_structural_keyword(name)})
            known = {**inner, **known}
            left_out += also
        else:
            left_out.append(str(key))
    return known, left_out


def adapt_moc(obj: Any) -> Sendable | None:
    """Return the formats of a MOC of mocpy; None for any other object."""
    if not isinstance_by_name(obj, "mocpy", "MOC"):
        return None

    def write(file: BinaryIO) -> None:
        obj.serialize(format="fits").writeto(file)

    return Sendable("coverage", "MOC", coverage_formats(write))


def coverage_formats(write: Callable[[BinaryIO], object] | None) -> tuple[MessageFormat, ...]:
    """Return the formats of a coverage. `write` writes its FITS file; None if the coverage is already in a file."""
    return (
        MessageFormat("coverage.load.moc.fits", ".fits", write, "coverage-id"),
        # Aladin 12 does not subscribe to that MType, and never replies when it gets a coverage with another load MType
        MessageFormat("script.aladin.send", ".fits", write, make_params=_load_script),
    )


def _load_script(url: str, name: str) -> dict[str, Any]:
    place = file_url_to_local_path(url) or url
    plane = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "coverage"
    return {"script": f"{plane}=load {place}"}


def adapt_position(obj: Any) -> Sendable | None:
    """Return the formats of a SkyCoord; None for any other object."""
    if not isinstance_by_name(obj, "astropy.coordinates", "SkyCoord", "BaseCoordinateFrame"):
        return None
    from astropy.coordinates import SkyCoord  # noqa: PLC0415

    coordinates = SkyCoord(obj)
    if not coordinates.isscalar and coordinates.size != 1:
        return sendable_table(QTable({"position": coordinates.ravel()}), "positions")
    try:
        ra, dec = (float(angle.deg.ravel()[0]) for angle in (coordinates.icrs.ra, coordinates.icrs.dec))
    except Exception as error:  # from astropy, about the first transformation that failed
        frame = coordinates.frame.name
        raise SAMPTypeError(
            f"A position in the frame {frame} can only be sent if it has all the information (time, location, "
            f"distance...) that is needed to convert it to ICRS: {error}"
        ) from error
    if not (math.isfinite(ra) and math.isfinite(dec)):
        raise SAMPTypeError(f"A position with non-finite coordinates (ra {ra}, dec {dec}) cannot be sent")
    return Sendable("position", "position", (MessageFormat("coord.pointAt.sky", "", params={"ra": ra, "dec": dec}),))
