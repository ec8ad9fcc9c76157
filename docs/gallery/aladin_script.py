"""Show an image and a catalogue in Aladin, mark the brightest sources by script, and visit them."""

from __future__ import annotations

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.wcs import WCS

from pyvo.samp import SAMPIntegratedClient


def make_field() -> tuple[CCDData, Table]:
    """Make an image with ten stars, and the catalogue of these."""
    random = np.random.default_rng(3)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [83.633, 22.0145]
    wcs.wcs.crpix = [151, 101]
    wcs.wcs.cdelt = [-0.0004, 0.0004]
    x, y, peak = random.uniform(20, 280, 10), random.uniform(20, 180, 10), random.uniform(100, 900, 10)
    rows, columns = np.mgrid[:200, :300]
    image = random.normal(10, 1, (200, 300))
    for x0, y0, height in zip(x, y, peak, strict=True):
        image += height * np.exp(-((columns - x0) ** 2 + (rows - y0) ** 2) / 8)
    ra, dec = wcs.pixel_to_world_values(x, y)
    return CCDData(image, unit="adu", wcs=wcs), Table({"ra": ra, "dec": dec, "peak": peak})


def main() -> list[SkyCoord]:
    """Visit the three brightest sources; return where Aladin says it is looking."""
    image, sources = make_field()
    visited = []
    with SAMPIntegratedClient(name="Tour") as client:
        client.wait_for("Aladin", timeout=60, mtype="script.aladin.send")
        client.send(image, to="Aladin", name="field").check()
        client.send(sources, to="Aladin", name="sources").check()
        client.aladin("cm field sqrt; zoom 2x")
        sources.sort("peak", reverse=True)
        for source in sources[:3]:
            client.aladin(f"draw circle({source['ra']:.6f}, {source['dec']:.6f}, 10arcsec)")
            client.point_at((source["ra"], source["dec"]), to="Aladin").check()
            position = client.get_position("Aladin")
            print(f"Aladin looks at {position.to_string('hmsdms', precision=1)}")
            visited.append(position)
    return visited


if __name__ == "__main__":
    main()
