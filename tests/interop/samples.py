# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A table and an image to send. They are artificial, but of the kind that astronomers send."""
from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from astropy.wcs import WCS

ROWS = 2345

#: Coordinates of the middle of the image (the Crab nebula), in degrees.
RA, DEC = 83.633, 22.0145
WIDTH, HEIGHT = 121, 81


def write_table(directory: Path) -> tuple[Table, str]:
    """Write a VOTable with strings, units and masked values; return it and its URL."""
    index = np.arange(ROWS)
    table = Table({
        "name": [f"star {i}" for i in index],
        "ra": np.linspace(0.0, 359.0, ROWS) * u.deg,
        "dec": np.linspace(-60.0, 60.0, ROWS) * u.deg,
        "mag": MaskedColumn(np.linspace(5.0, 20.0, ROWS), mask=index % 7 == 0, unit=u.mag),
        "number": index,
    })
    path = directory / "stars.vot"
    table.write(path, format="votable")
    return table, path.as_uri()


def write_image(directory: Path) -> str:
    """Write a FITS image whose middle pixel is at `RA`, `DEC`; return its URL."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [RA, DEC]
    wcs.wcs.crpix = [(WIDTH + 1) / 2, (HEIGHT + 1) / 2]
    wcs.wcs.cdelt = [-0.001, 0.001]
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.hypot(x - WIDTH // 2, y - HEIGHT // 2).astype("float32")
    path = directory / "crab.fits"
    fits.PrimaryHDU(pixels, header=wcs.to_header()).writeto(path)
    return path.as_uri()
