# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""JSAMP's test programs as clients of our hub by the Web Profile."""
from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from pyvo.samp import SAMPHubServer

from .conftest import Run
from .network import WEB_PORT, own_network

pytestmark = pytest.mark.timeout(150)

#: Environment variable with which JSAMP's clients use the Web Profile, and their name.
BY_WEB = {"SAMP_HUB": "web-appname:tester"}


def allow(samp_name: str, details: Mapping[str, str], client: tuple[str, int], origin: str) -> bool:
    """Allow every registration."""
    return True


@pytest.fixture
def web_hub(home: object) -> Iterator[SAMPHubServer]:
    """Our hub, which allows every registration, and every message of pages (R47)."""
    with own_network():
        hub = SAMPHubServer(web_port=WEB_PORT, web_profile_dialog=allow, web_profile_mtypes=["*"])
        hub.start()
        assert hub.web_profile_running
        yield hub
        hub.stop()


def test_hubtester_finds_nothing_wrong_with_the_web_profile(web_hub: SAMPHubServer, run: Run) -> None:
    """Rules R39 to R42, as the reference implementation understands them."""
    tester = run("jsamp", "hubtester", **BY_WEB)
    # JSAMP's clients continue to pull after they have unregistered, and log the fault. So only the status is checked.
    assert tester.finish(120) == 0, tester.output


@pytest.mark.parametrize("mode", ["sync", "async", "notify", "random"])
def test_calcstorm_loses_no_message_in_the_web_profile(web_hub: SAMPHubServer, run: Run, mode: str) -> None:
    """Each of ten web clients sends fifty calls to the others (R42, R49)."""
    storm = run("jsamp", "calcstorm", "-nclient", "10", "-nquery", "50", "-mode", mode, **BY_WEB)
    assert storm.finish(120) == 0, storm.output
    assert "Elapsed time" in storm.output, storm.output
