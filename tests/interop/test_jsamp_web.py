# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""JSAMP's testers as members of our hub by the Web Profile."""
from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from pyvo.samp import SAMPHubServer

from .conftest import Run
from .network import WEB_PORT, own_network

pytestmark = pytest.mark.timeout(150)

#: How JSAMP's clients are told to come by the Web Profile, and under which name.
BY_WEB = {"SAMP_HUB": "web-appname:tester"}


def agree(samp_name: str, details: Mapping[str, str], client: tuple[str, int], origin: str) -> bool:
    """Say yes, as the user who is asked."""
    return True


@pytest.fixture
def web_hub(home: object) -> Iterator[SAMPHubServer]:
    """Our hub, with a user who agrees to everything and lets pages send everything (R47)."""
    with own_network():
        hub = SAMPHubServer(web_port=WEB_PORT, web_profile_dialog=agree, web_profile_mtypes=["*"])
        hub.start()
        assert hub.web_profile_running
        yield hub
        hub.stop()


def test_hubtester_finds_nothing_wrong_with_the_web_profile(web_hub: SAMPHubServer, run: Run) -> None:
    """Rules R39 to R42, as the reference implementation understands them."""
    tester = run("jsamp", "hubtester", **BY_WEB)
    # JSAMP's clients go on pulling when they have unregistered, and log the fault they get: the status alone counts.
    assert tester.finish(120) == 0, tester.output


@pytest.mark.parametrize("mode", ["sync", "async", "notify", "random"])
def test_calcstorm_loses_nothing_over_the_web_profile(web_hub: SAMPHubServer, run: Run, mode: str) -> None:
    """Ten web clients that ask each other fifty questions each (R42, R49)."""
    storm = run("jsamp", "calcstorm", "-nclient", "10", "-nquery", "50", "-mode", mode, **BY_WEB)
    assert storm.finish(120) == 0, storm.output
    assert "Elapsed time" in storm.output, storm.output
