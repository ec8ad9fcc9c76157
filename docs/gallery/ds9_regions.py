"""Send an image to DS9, let its user draw circles, and measure the flux in each circle."""

from __future__ import annotations

import re

import numpy as np
from astropy.nddata import CCDData

from pyvo.samp import SAMPIntegratedClient

CIRCLE = re.compile(r"^circle\(([\d.]+),([\d.]+),([\d.]+)\)", re.MULTILINE)


def make_image() -> CCDData:
    """Make an image with three stars."""
    y, x = np.mgrid[:200, :300]
    image = np.random.default_rng(1).normal(0, 1, x.shape)
    for x0, y0, peak in [(80, 60, 300), (150, 120, 800), (230, 150, 100)]:
        image += peak * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 18)
    return CCDData(image, unit="adu")


def measure(image: CCDData, regions: str) -> list[tuple[float, float, float]]:
    """Return the position (first pixel: 1, 1) and the flux of each circle."""
    y, x = np.indices(image.shape)
    found = []
    for x0, y0, radius in (map(float, circle) for circle in CIRCLE.findall(regions)):
        inside = np.hypot(x + 1 - x0, y + 1 - y0) <= radius
        found.append((x0, y0, float(image.data[inside].sum())))
    return found


def main() -> list[tuple[float, float, float]]:
    """Show the image, wait for the user, and print what was measured."""
    image = make_image()
    with SAMPIntegratedClient(name="Photometry") as client:
        client.wait_for("ds9", timeout=60, mtype="image.load.fits")
        client.send(image, to="ds9", name="stars").check()
        client.ds9("zoom to fit")
        input("Draw circles around stars in DS9, then press Return here. ")
        found = measure(image, client.ds9.get("regions -format ds9 -system image"))
    for x, y, flux in found:
        print(f"x = {x:6.1f}   y = {y:6.1f}   flux = {flux:9.1f} adu")
    return found


if __name__ == "__main__":
    main()
