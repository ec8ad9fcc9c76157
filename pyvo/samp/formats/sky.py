# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Spectra, coverages and positions."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from ..errors import SAMPTypeError, warn
from ..web_profile.url_permissions import local_path
from .headers import describes_data
from .model import Form, Product, attribute, first_text, is_a
from .tables import table_product
from .votable_writer import write_votable

__all__ = ["coverage_forms", "moc_of", "position_of", "spectrum_of"]


def spectrum_of(obj: Any) -> Product | None:
    """Tell the forms of what has a spectral axis and a flux; None for any other object."""
    axis, flux = attribute(obj, "spectral_axis"), attribute(obj, "flux")
    dimensions = getattr(flux, "ndim", 0)
    if axis is None or flux is None or not dimensions:
        return None
    if dimensions > 1:
        raise SAMPTypeError(f"{type(obj).__name__} with a flux of {dimensions} dimensions cannot be sent: send its "
                            "spectra one by one")  # fmt: skip
    from astropy.table import QTable  # noqa: PLC0415
    from astropy.utils.masked import Masked  # noqa: PLC0415

    mask = attribute(obj, "mask")
    table = QTable([axis, flux if mask is None else Masked(flux, mask=mask)], names=["spectral_axis", "flux"])
    uncertainty = attribute(obj, "uncertainty")
    if uncertainty is not None:
        error = uncertainty.represent_as(sys.modules["astropy.nddata"].StdDevUncertainty)
        table["uncertainty"] = error.quantity if error.unit is not None else error.array * flux.unit
    meta = getattr(obj, "meta", None) or {}
    known, left_out = _plain(meta)
    table.meta.update(known)
    name = first_text(meta.get("name"), meta.get("OBJECT"), known.get("OBJECT")) or "spectrum"
    table.meta.update({"name": name, "utype": "spec:Spectrum"})

    def write(file: BinaryIO) -> None:
        if left_out:
            warn(f"Tables cannot hold all that is known of the spectrum; it is sent without {', '.join(left_out)}")
        write_votable(table, file)

    description = {"Access.Format": "application/x-votable+xml", "Target.Name": name}
    forms = (
        Form("spectrum.load.ssa-generic", ".vot", write, "spectrum-id", {"meta": description}),
        *table_product(table).forms,
    )
    return Product("spectrum", name, forms, int(flux.nbytes) * 2)


def _plain(meta: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What of some metadata is plain, with that of a header in it, and the names of what is not."""
    import numpy as np  # noqa: PLC0415

    known: dict[str, Any] = {}
    left_out: list[str] = []
    for key, value in meta.items():
        if isinstance(value, str | int | float | np.generic):
            known[str(key)] = value
        elif key == "header" and isinstance(value, Mapping):
            inner, also = _plain({name: value[name] for name in value if not describes_data(name)})
            known = {**inner, **known}
            left_out += also
        else:
            left_out.append(str(key))
    return known, left_out


def moc_of(obj: Any) -> Product | None:
    """Tell the forms of a MOC of mocpy; None for any other object."""
    if not is_a(obj, "mocpy", "MOC"):
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


def position_of(obj: Any) -> Product | None:
    """Tell the forms of a SkyCoord; None for any other object."""
    if not is_a(obj, "astropy.coordinates", "SkyCoord", "BaseCoordinateFrame"):
        return None
    from astropy.coordinates import SkyCoord  # noqa: PLC0415

    coordinates = SkyCoord(obj)
    if not coordinates.isscalar and coordinates.size != 1:
        from astropy.table import QTable  # noqa: PLC0415

        return table_product(QTable({"position": coordinates.ravel()}), "positions")
    try:
        ra, dec = (float(angle.deg.ravel()[0]) for angle in (coordinates.icrs.ra, coordinates.icrs.dec))
    except Exception as error:  # of astropy, about whatever it tried first
        frame = coordinates.frame.name
        raise SAMPTypeError(
            f"A position in the frame {frame} cannot be sent unless all is known (time, location, distance...) by "
            f"which it can be converted to ICRS: {error}"
        ) from error
    if not (math.isfinite(ra) and math.isfinite(dec)):
        raise SAMPTypeError(f"A position with coordinates that are not finite (ra {ra}, dec {dec}) cannot be sent")
    return Product("position", "position", (Form("coord.pointAt.sky", "", params={"ra": ra, "dec": dec}),))
