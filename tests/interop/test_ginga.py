# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The fixtures for other projects, used with ginga, whose SAMP plugin imports ``pyvo.samp``.

Ginga's viewer runs without a screen. It is not changed for the test, and finds the hub in its home directory.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pyvo.samp.testing import RecordingClient
from tests.conftest import ROOT

from .programs import Program, environment

pytest.importorskip("ginga", reason="ginga is not installed (the extra `libraries` has it)")
pytest.importorskip("PySide6", reason="PySide6 is not installed (the extra `libraries` has it)")


@pytest.fixture
def tester(samp_client: Callable[..., RecordingClient]) -> RecordingClient:
    """A client that takes the place of the program from which ginga gets images."""
    return samp_client("tester", ["image.load.fits"])


@pytest.fixture
def ginga(samp_home: Path, tester: RecordingClient) -> Iterator[Program]:
    """Ginga's viewer, with its SAMP plugin connected to the hub of this test."""
    script = "import sys; from ginga.rv.main import reference_viewer; reference_viewer(sys.argv)"
    options = ("--toolkit=qt", "--modules=SAMP", "--loglevel=20", "--stderr", "--nosplash")
    variables = {"QT_QPA_PLATFORM": "offscreen", "PYTHONPATH": str(ROOT)}
    with Program(sys.executable, "-c", script, *options, env=environment(samp_home, **variables)) as program:
        tester.wait_for("ginga", 60, "table.load.votable")  # the last subscription of ginga
        yield program


def test_ginga_loads_an_image(ginga: Program, tester: RecordingClient) -> None:
    image = fits.HDUList([fits.PrimaryHDU(np.arange(12.0).reshape(3, 4))])
    assert tester.send(image, to="ginga").ok
    ginga.wait_for("received load fits params=")


def test_ginga_reports_an_error(ginga: Program, tester: RecordingClient) -> None:
    response = tester.ecall_and_wait("ginga", "image.load.fits", 30, url="file:///there/is/no/such.fits")
    assert response["samp.status"] == "samp.error"


def test_ginga_sends_nothing_and_unregisters(ginga: Program, tester: RecordingClient) -> None:
    assert tester.get_metadata(tester.clients["ginga"].id)["samp.description.text"] == "Ginga viewer"
    ginga.stop()
    tester.assert_not_received("*")
    tester.assert_unregistered("ginga", within=30)
