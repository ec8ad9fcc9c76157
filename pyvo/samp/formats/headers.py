# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Make the FITS headers of images, with the coordinates and the metadata that FITS can represent."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from astropy.io import fits

from ..errors import warn
from .model import safe_getattr

_ANY_HDU = r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|CHECKSUM|DATASUM|END|ZIMAGE|"
#: Keywords that describe how the image was stored in its file, not its pixels.
_STRUCTURAL = re.compile(
    _ANY_HDU + r"GROUPS|INHERIT|EXTNAME|EXTVER|EXTLEVEL|BSCALE|BZERO|BLANK|"
    r"Z(BITPIX|NAXIS\d*|TILE\d+|CMPTYPE|NAME\d+|VAL\d+|QUANTIZ|DITHER0)"
)
#: The same for tables, including the names that astropy uses for its own information.
_STRUCTURAL_IN_TABLES = re.compile(
    _ANY_HDU + r"TFIELDS|THEAP|CONTINUE|ZTABLE|"
    r"T(TYPE|FORM|UNIT|NULL|SCAL|ZERO|DISP|BCOL|DIM|CTYP|CUNI|CRPX|CRVL|CDLT|RPOS)\d+|__\w+__"
)
#: Keywords of coordinates. All are removed when new coordinates are written, because readers would mix the two systems.
_WCS_KEYWORDS = re.compile(
    r"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CNAME|CRDER|CSYER)\d+[A-Z]?|(CD|PC|PV|PS)\d+_\d+[A-Z]?|CD0*\d{6}|"
    r"(A|B|AP|BP)_(ORDER|DMAX|\d+_\d+)|(CPDIS|CQDIS|CPERR|CQERR|D2IM\w*|DP|DQ)\d*|PROJP\d+|"
    r"(WCSAXES|WCSNAME|LONPOLE|LATPOLE|RADESYS|EQUINOX|SPECSYS|SSYSOBS|RESTFRQ|RESTWAV|VELREF)[A-Z]?|"
    r"RADECSYS|WCSDIM|WAT\d_\d+"
)
#: Number of pixels that is used for an axis of unknown length.
LARGE = 10_000


def is_structural_keyword(key: str) -> bool:
    """Return whether a keyword describes the storage or the coordinates of the image data in the same file."""
    return bool(_STRUCTURAL.fullmatch(key.upper()) or _WCS_KEYWORDS.fullmatch(key.upper()))


def is_table_keyword(keyword: str) -> bool:
    """Return whether a keyword (in upper case) describes how a table is stored; metadata must not use such keywords."""
    return bool(_STRUCTURAL_IN_TABLES.fullmatch(keyword))


def make_header(meta: Mapping[str, Any], wcs: Any) -> Any:
    """
    Make the header of an image from its metadata (a mapping) and its WCS (or None).

    Warn about metadata and coordinates that are left out.
    """
    header = fits.Header()
    left_out = []
    for key, value, comment in _cards(meta):
        if _STRUCTURAL.fullmatch(key.upper()) or (wcs is not None and _WCS_KEYWORDS.fullmatch(key.upper())):
            continue
        card = card_of(key, value, comment)
        if card is None:
            left_out.append(key)
        else:
            header.append(card, end=True)
    if left_out:
        warn(f"FITS cannot represent all metadata of the image; it is sent without {', '.join(left_out)}")
    if wcs is not None:
        coordinates = _coordinates(wcs)
        if coordinates is None:
            warn(f"FITS cannot represent the coordinates of the image ({type(wcs).__name__}); it is sent without them")
        else:
            header.update(coordinates)
    return header


def _cards(meta: Mapping[str, Any]) -> Iterable[tuple[str, Any, str]]:
    cards = safe_getattr(meta, "cards")
    if cards is not None:
        return ((card.keyword, card.value, card.comment) for card in cards)
    return ((str(key), value, "") for key, value in dict(meta).items())


def card_of(key: str, value: Any, comment: str) -> Any:
    """Make a header card; return None if FITS cannot represent it."""
    if value is not None and not isinstance(value, str | int | float | complex | np.generic | fits.card.Undefined):
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # about long keywords and long comments
        try:
            card = fits.Card(key, value, comment)
            text = str(card)  # astropy checks the card here
            caught.clear()
            again = fits.Card.fromstring(text)  # astropy 8.0 writes some long keywords and values that it cannot read
            again.verify("exception")
            if again.keyword != card.keyword or caught:
                return None
        except (ValueError, TypeError, fits.VerifyError):
            return None
    return card


def _coordinates(wcs: Any) -> Any:
    """Return coordinates as a header; None if FITS cannot represent them."""
    low = safe_getattr(wcs, "low_level_wcs") or wcs
    for candidate in (wcs, low, _sliced_wcs(low)):
        if callable(safe_getattr(candidate, "to_header")):
            return candidate.to_header(relax=True)
    return None


def _sliced_wcs(low: Any) -> Any:
    """Return the FITS coordinates of a slice of an image or cube; None if they cannot be determined."""
    whole, cuts = safe_getattr(low, "_wcs"), safe_getattr(low, "_slices_array")
    if cuts is None or not callable(safe_getattr(whole, "to_header")):
        return None
    try:
        whole = whole.deepcopy()
        whole.pixel_shape = whole.pixel_shape or (LARGE,) * whole.naxis  # older versions of astropy require a shape
        part = whole.slice([cut if isinstance(cut, slice) else slice(cut, cut + 1) for cut in cuts])
        axes = [whole.naxis - place for place, cut in enumerate(cuts) if isinstance(cut, slice)]
        part = part.sub(sorted(axes))
        shape = low.array_shape or (100,) * low.pixel_n_dim
        corners = np.array([np.zeros(low.pixel_n_dim), np.array(shape[::-1], dtype=float) - 1]).T
        here, there = (one.pixel_to_world_values(*corners) for one in (low, part))
        return part if np.allclose(here, there, rtol=1e-9, atol=1e-9, equal_nan=True) else None
    except Exception:  # for example because of coupled axes or slices with steps
        return None
