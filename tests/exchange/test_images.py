# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Images: pixels, world coordinates and metadata."""

from __future__ import annotations

import warnings
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, NDData, NDDataRef, StdDevUncertainty
from astropy.utils.masked import Masked
from astropy.wcs import WCS

from pyvo.samp import SAMPTypeError, SAMPWarning
from pyvo.samp.formats.registry import to_sendable
from tests.formats.test_registry import written

from .conftest import wcs

#: Rotated coordinates, in all the ways in which a header can give a rotation, and distorted coordinates.
ROTATED: dict[str, dict[str, Any]] = {
    "CD": {"CD1_1": -0.07, "CD1_2": 0.07, "CD2_1": 0.07, "CD2_2": 0.07},
    "PC": {"CDELT1": -0.1, "CDELT2": 0.1, "PC1_1": 0.7, "PC1_2": 0.7, "PC2_1": -0.7, "PC2_2": 0.7},
    "CROTA": {"CDELT1": -0.2, "CDELT2": 0.2, "CROTA2": 45.0},
    "SIP": {"CD1_1": -0.1, "CD2_2": 0.1, "A_ORDER": 2, "A_2_0": 1e-3, "B_ORDER": 2, "B_0_2": 1e-3},
    "PV": {"CD1_1": -0.1, "CD2_2": 0.1, "PV1_1": 1.0, "PV2_1": 1.1, "PV2_2": 0.1},
    "another": {"CTYPE1A": "RA---TAN", "CTYPE2A": "DEC--TAN", "CRVAL1A": 3.0, "CRVAL2A": 4.0, "WCSNAMEA": "old"},
}
STALE = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 50.0, "CRVAL2": 60.0, "CRPIX1": 7.0, "CRPIX2": 8.0,
         "RADESYS": "FK5", "EQUINOX": 1975.0, "LONPOLE": 90.0}


def sent(obj: Any) -> Any:
    """Return the first HDU of the file that is sent."""
    return fits.open(written(to_sendable(obj), "image.load.fits"))[0]


@pytest.mark.parametrize("old", ROTATED)
def test_coordinates_of_the_image_replace_those_of_the_header(old: str) -> None:
    """Keywords for coordinates in the header of the original file do not change the coordinates of the image."""
    meta = {**STALE, **ROTATED[old], "EXPTIME": 3.0}
    for kind in (dict, fits.Header):
        header = sent(CCDData(np.ones((10, 10)), unit="adu", wcs=wcs(), meta=kind(meta))).header
        assert header["EXPTIME"] == 3.0
        assert not {"CD1_1", "PC1_2", "CROTA2", "A_ORDER", "PV2_1", "CTYPE1A"} & set(header)
        for pixel in ((0, 0), (9, 9)):
            here, there = wcs().pixel_to_world(*pixel), WCS(header).pixel_to_world(*pixel)
            assert here.separation(there) < 1e-6 * u.deg


def test_coordinates_of_the_header() -> None:
    """If the image has no coordinates, those of its header are kept."""
    meta = {**STALE, **ROTATED["CD"]}
    header = sent(NDData(np.ones((10, 10)), meta=meta)).header
    assert header["CD1_2"] == 0.07
    assert header["CRVAL1"] == 50


def cube_coordinates() -> WCS:
    cube = WCS(naxis=3)
    cube.wcs.ctype = ["RA---TAN", "DEC--TAN", "FREQ"]
    cube.wcs.crval = [10, 20, 1e9]
    cube.wcs.cdelt = [-0.1, 0.1, 1e6]
    cube.wcs.crpix = [5, 5, 1]
    return cube


def test_slices() -> None:
    """A plane of a cube, and a part of a plane, keep their coordinates."""
    cube = NDDataRef(np.ones((4, 10, 12)), wcs=cube_coordinates())
    for part in (cube[1], cube[1, 2:6, 3:7], cube[1:3], cube[:, 2:6, 3:7]):
        header = sent(part).header
        pixel = np.arange(np.ndim(part.data))
        assert np.allclose(part.wcs.low_level_wcs.pixel_to_world_values(*pixel),
                           WCS(header).pixel_to_world_values(*pixel))

    distorted = WCS(fits.Header({**STALE, **ROTATED["SIP"], "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"}))
    part = NDDataRef(np.ones((10, 10)), wcs=distorted)[2:8, 3:9]
    here, there = part.wcs.pixel_to_world(5, 1), WCS(sent(part).header).pixel_to_world(5, 1)
    assert here.separation(there) < 1e-6 * u.deg


def test_coordinates_that_fits_cannot_represent() -> None:
    """Coordinates such as those of a plane across the sky are left out, with a warning."""
    plane = NDDataRef(np.ones((4, 10, 12)), wcs=cube_coordinates())[:, 3]
    with pytest.warns(SAMPWarning, match="FITS cannot represent the coordinates of the image .*without them"):
        header = sent(plane).header
    assert "CTYPE1" not in header


def test_metadata_that_the_header_cannot_hold() -> None:
    """Values that a FITS header cannot hold are left out, and a warning names them."""
    meta = {
        "GOOD": 1, "NAN": np.nan, "INF": np.inf, "ACCENT": "é", "LINES": "a\nb", "key é": 1, "k=v": 2, "LIST": [1],
        "NUMBER": np.float64(3.5), "FLAG": np.bool_(True), "a long key": "x", "LONG": "x" * 200, "NONE": None,
    }  # fmt: skip
    with pytest.warns(SAMPWarning, match="sent without NAN, INF, ACCENT, LINES, key é, k=v, LIST$") as caught:
        header = sent(CCDData(np.ones((2, 2)), unit="adu", meta=meta)).header
    # the warning has the line that called write
    assert caught[0].filename == __file__.replace("exchange/test_images", "formats/test_registry")
    assert (header["GOOD"], header["NUMBER"], header["FLAG"]) == (1, 3.5, True)
    assert (header["a long key"], header["LONG"]) == ("x", "x" * 200)


def test_comments_and_history() -> None:
    header = fits.Header()
    header["EXPTIME"] = (30.0, "[s] exposure")
    header["HISTORY"] = "first"
    header["HISTORY"] = "second"
    back = sent(CCDData(np.ones((2, 2)), unit="adu", meta=header)).header
    assert back.comments["EXPTIME"] == "[s] exposure"
    assert list(back["HISTORY"]) == ["first", "second"]


def test_keywords_of_another_file() -> None:
    """Keywords that describe the pixels of the original file are left out: the pixels are not scaled a second time."""
    original = fits.ImageHDU(np.array([[1, 65535]], dtype="u2"), name="SCI").header
    header = {**dict(original), "BSCALE": 2.0, "BZERO": 100.0, "BLANK": 1}
    hdu = sent(CCDData(np.array([[1, 2]]), unit="adu", meta=header))
    assert hdu.data.tolist() == [[1, 2]]
    assert "XTENSION" not in hdu.header


def test_uncertainties() -> None:
    image = CCDData(np.ones((2, 2)), unit="adu", uncertainty=StdDevUncertainty(np.ones((2, 2))))
    with pytest.warns(SAMPWarning, match="the image is sent without them"):
        sent(image)


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "i4", "f4", "f8"])
def test_masks(kind: str) -> None:
    """Masks of all kinds of arrays are sent as NaN, without a loss of digits."""
    values = np.array([[1, 2], [3, min(np.iinfo("i4").max, np.iinfo(kind).max) if kind[0] in "iu" else 5]], dtype=kind)
    mask = np.array([[True, False], [False, False]])
    for obj in (Masked(values, mask=mask), np.ma.array(values, mask=mask), NDData(values, mask=mask),
                Masked(values * u.Jy, mask=mask)):
        if isinstance(obj, u.Quantity) and kind[0] in "iu":
            continue  # the product is a float
        data = sent(obj).data
        assert np.isnan(data[0, 0])
        assert data.ravel().tolist()[1:] == values.ravel().tolist()[1:]
    assert sent(values).data.tolist() == values.tolist()


def test_too_few_dimensions() -> None:
    with pytest.raises(SAMPTypeError, match="NDData with 1-dimensional data is not an image"):
        to_sendable(NDData(np.ones(4)))


def test_a_complete_image_causes_no_warnings() -> None:
    """An image that FITS can represent completely is sent without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sent(CCDData(np.ones((2, 2)), unit="adu", wcs=wcs(), meta={"OBJECT": "M 31"}))
