# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Objects of optional libraries: pandas, mocpy, specutils. A test is skipped if its library is not installed."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import StdDevUncertainty
from astropy.table import Table

from pyvo.samp import SAMPIntegratedClient, SAMPTypeError, SAMPWarning

Pair = tuple[SAMPIntegratedClient, SAMPIntegratedClient]

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


def exchange(pair: Pair, obj: Any, mtype: str, **options: Any) -> Any:
    """Send an object; return the object that is received."""
    alice, bob = pair
    with bob.incoming(mtype) as queue:
        report = alice.send(obj, to="bob", **options)
        assert report.ok, report
        return queue.get(10)


def test_pandas(pair: Pair) -> None:
    """Numbers, texts, missing values and dates are sent; an index with a name becomes a column."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "n": [1, 2],
            "x": [1.5, np.nan],
            "s": ["a", "b"],
            "t": pandas.to_datetime(["2020-01-01", "2021-01-01"]),
            5: [0, 1],
        },
        index=pandas.Index([10, 20], name="id"),
    )
    frame.attrs["name"] = "frame"
    for mtype in ("table.load.votable", "table.load.fits"):
        back = exchange(pair, frame, mtype)
        assert back.name == "frame"
        assert back["id"].tolist() == [10, 20]
        assert back["n"].tolist() == [1, 2]
        assert [str(text) for text in back["s"]] == ["a", "b"]
        assert np.isnan(np.ma.filled(back["x"], np.nan)).tolist() == [False, True]
        assert "5" in back.colnames
    assert len(exchange(pair, frame["n"], "table.load.votable")) == 2


def test_pandas_dates(pair: Pair) -> None:
    """Dates with and without a time zone, missing dates, and durations are sent."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "zone": pandas.to_datetime(["2020-01-01T12:00", None]).tz_localize("Europe/Berlin"),
            "plain": pandas.to_datetime(["2020-01-01", None]),
            "long": pandas.to_timedelta([1, 2], unit="s"),
        }
    )
    back = exchange(pair, frame, "table.load.votable")
    assert back["zone"].tolist() == ["2020-01-01T11:00:00.000", None]
    assert back["plain"].tolist() == ["2020-01-01T00:00:00.000", None]
    assert back["long"].quantity.to_value("s").tolist() == [1, 2]


def test_pandas_labels(pair: Pair) -> None:
    """Every column is sent, also if labels are equal or have several levels."""
    pandas = pytest.importorskip("pandas")
    levels = pandas.DataFrame({("a", "x"): [1], ("a", "y"): [2], ("b", ""): [3]})
    assert exchange(pair, levels, "table.load.votable").colnames == ["a.x", "a.y", "b"]
    equal = pandas.DataFrame([[1, 2, 3]], columns=["a", "a", "b"], index=pandas.Index([7], name="a"))
    back = exchange(pair, equal, "table.load.votable")
    assert [(name, back[name][0]) for name in back.colnames] == [("a", 7), ("a_2", 1), ("a_3", 2), ("b", 3)]
    assert equal.columns.tolist() == ["a", "a", "b"]
    several = pandas.DataFrame({"f": [1.0]}, index=pandas.MultiIndex.from_tuples([(1, "x")]))
    assert exchange(pair, several, "table.load.votable").colnames == ["level_0", "level_1", "f"]
    unnamed = pandas.DataFrame({"f": [1.0, 2.0]})[1:].set_index(pandas.Index(["x"]))
    assert exchange(pair, unnamed, "table.load.votable").colnames == ["index", "f"]


def test_moc(pair: Pair) -> None:
    mocpy = pytest.importorskip("mocpy")
    moc = mocpy.MOC.from_cone(lon=10 * u.deg, lat=20 * u.deg, radius=1 * u.deg, max_depth=10)
    back = exchange(pair, moc, "coverage.load.moc.fits", name="cone")
    assert back == moc
    assert (back.name, back.sender.name) == ("cone", "Alice")


def test_spectrum(pair: Pair) -> None:
    specutils = pytest.importorskip("specutils")
    kind = getattr(specutils, "Spectrum", None) or specutils.Spectrum1D
    spectrum = kind(
        spectral_axis=np.linspace(5000, 6000, 20) * u.AA,
        flux=np.arange(20) * u.Jy,
        uncertainty=StdDevUncertainty(np.ones(20)),
        meta={"name": "a star"},
    )
    back = exchange(pair, spectrum, "spectrum.load.ssa-generic")
    assert back.name == "a star"
    assert back.flux.unit == u.Jy
    assert back.flux.value.tolist() == list(range(20))
    assert u.allclose(back.spectral_axis, spectrum.spectral_axis)
    assert back.uncertainty.array.tolist() == [1] * 20
    table = exchange(pair, spectrum, "table.load.votable")  # for recipients that do not accept spectra
    assert table["flux"].unit == u.Jy


def test_mask_and_metadata_of_a_spectrum(pair: Pair) -> None:
    """The mask and the simple metadata of a spectrum are sent; a warning names the other metadata."""
    specutils = pytest.importorskip("specutils")
    kind = getattr(specutils, "Spectrum", None) or specutils.Spectrum1D
    header = fits.Header({"OBJECT": "Vega", "EXPTIME": 3.0, "NAXIS": 1, "CRVAL1": 5000.0})
    spectrum = kind(
        spectral_axis=np.linspace(5000, 6000, 4) * u.AA,
        flux=np.arange(4) * u.Jy,
        mask=np.array([False, True, False, False]),
        meta={"header": header, "AIRMASS": np.float64(1.2), "steps": [1, 2]},
    )
    with pytest.warns(SAMPWarning, match="sent without steps"):
        back = exchange(pair, spectrum, "spectrum.load.ssa-generic")
    assert back.name == "Vega"
    assert back.mask.tolist() == spectrum.mask.tolist()
    assert back.flux.value[2:].tolist() == [2, 3]
    assert (back.meta["AIRMASS"], back.meta["EXPTIME"]) == (1.2, 3.0)
    assert "CRVAL1" not in back.meta
    table = exchange(pair, spectrum, "table.load.fits")
    assert np.isnan(np.ma.filled(table["flux"], np.nan)).tolist() == spectrum.mask.tolist()
    with pytest.raises(SAMPTypeError, match="flux of 2 dimensions cannot be sent: send each spectrum separately"):
        pair[0].send(kind(spectral_axis=np.linspace(1, 2, 4) * u.um, flux=np.ones((2, 4)) * u.Jy))


def test_an_object_like_a_spectrum(pair: Pair) -> None:
    """An object with the attributes of a spectrum can be sent; without specutils it is received as a table."""
    from types import SimpleNamespace

    spectrum = SimpleNamespace(spectral_axis=np.linspace(1, 2, 5) * u.um, flux=np.ones(5) * u.Jy, meta={})
    back = exchange(pair, spectrum, "spectrum.load.*")
    flux = back["flux"] if isinstance(back, Table) else back.flux
    assert flux.unit == u.Jy
    assert len(flux) == 5
