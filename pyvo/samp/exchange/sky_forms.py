# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Spectra, coverages and positions."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from ..url_book import local_path
from .forms import Form, Product, attribute, first_text, is_a
from .table_forms import table_product
from .votable_writer import write_votable

__all__ = ["coverage_forms", "moc_of", "position_of", "spectrum_of"]


def spectrum_of(obj: Any) -> Product | None:
    """Tell the forms of what has a spectral axis and a flux; None for any other object."""
    axis, flux = attribute(obj, "spectral_axis"), attribute(obj, "flux")
    if axis is None or flux is None or getattr(flux, "ndim", 0) != 1:
        return None
    from astropy.table import QTable  # noqa: PLC0415

    table = QTable([axis, flux], names=["spectral_axis", "flux"])
    uncertainty = attribute(obj, "uncertainty")
    if uncertainty is not None:
        error = uncertainty.represent_as(sys.modules["astropy.nddata"].StdDevUncertainty)
        table["uncertainty"] = error.quantity if error.unit is not None else error.array * flux.unit
    meta = getattr(obj, "meta", None) or {}
    name = first_text(meta.get("name"), meta.get("OBJECT")) or "spectrum"
    table.meta.update({"name": name, "utype": "spec:Spectrum"})
    write = lambda file: write_votable(table, file)  # noqa: E731 - of two forms
    description = {"Access.Format": "application/x-votable+xml", "Target.Name": name}
    forms = (
        Form("spectrum.load.ssa-generic", ".vot", write, "spectrum-id", {"meta": description}),
        *table_product(table).forms,
    )
    return Product("spectrum", name, forms, int(flux.nbytes) * 2)


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
    ra, dec = (float(angle.deg.ravel()[0]) for angle in (coordinates.icrs.ra, coordinates.icrs.dec))
    return Product("position", "position", (Form("coord.pointAt.sky", "", params={"ra": ra, "dec": dec}),))
