# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Objects of libraries that need not be installed: pandas, mocpy, specutils. Skipped where one is not."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import StdDevUncertainty
from astropy.table import Table

from pyvo.samp import SAMPIntegratedClient

Pair = tuple[SAMPIntegratedClient, SAMPIntegratedClient]

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


def exchange(pair: Pair, obj: Any, mtype: str, **options: Any) -> Any:
    """Send something and receive it."""
    alice, bob = pair
    with bob.incoming(mtype) as queue:
        report = alice.send(obj, to="bob", **options)
        assert report.ok, report
        return queue.get(10)


def test_pandas(pair: Pair) -> None:
    """Numbers, text, what is missing, dates; an index with a name becomes a column."""
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
    table = exchange(pair, spectrum, "table.load.votable")  # for those who take no spectra
    assert table["flux"].unit == u.Jy


def test_spectrum_like(pair: Pair) -> None:
    """What looks like one will do; without specutils it is received as a table."""
    from types import SimpleNamespace

    spectrum = SimpleNamespace(spectral_axis=np.linspace(1, 2, 5) * u.um, flux=np.ones(5) * u.Jy, meta={})
    back = exchange(pair, spectrum, "spectrum.load.*")
    flux = back["flux"] if isinstance(back, Table) else back.flux
    assert flux.unit == u.Jy
    assert len(flux) == 5
