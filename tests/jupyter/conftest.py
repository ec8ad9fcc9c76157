# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Fixtures: a relay, pages that show it, and a hub with the Web Profile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient


@pytest.fixture
def web_hub(make_hub: Callable[..., SAMPHubServer]) -> SAMPHubServer:
    return make_hub(web_profile=True, web_profile_dialog=lambda _name, _origin: True)


@pytest.fixture
def near(web_hub: SAMPHubServer) -> Iterator[SAMPIntegratedClient]:
    """A client of the Standard Profile on the computer of the hub."""
    client = SAMPIntegratedClient(name="near")
    client.connect(hub=web_hub)
    yield client
    client.disconnect()


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A relay without a kernel. Its messages go to all pages in its list ``pages``."""
    from pyvo.samp.jupyter import HubRelay

    pages: list[Any] = []

    def send(_self: HubRelay, content: dict[str, Any], buffers: Any = None) -> None:
        for page in pages:
            page.receive(content, buffers or [])

    monkeypatch.setattr(HubRelay, "send", send)
    widget = HubRelay()
    widget.pages = pages
    yield widget
    widget.close()


@pytest.fixture
def show(relay: Any, web_hub: SAMPHubServer) -> Iterator[Callable[..., Any]]:
    """Return a function that shows the relay in one more page, until the end of the test."""
    from .fake_page import FakePage

    def start(name: str = "a", **options: Any) -> FakePage:
        page = FakePage(relay, name, web_hub._web_port, **options)
        relay.pages.append(page)
        return page

    yield start
    for page in relay.pages:
        page.close(bye=False)


@pytest.fixture
def client(relay: Any, show: Callable[..., Any]) -> Iterator[SAMPIntegratedClient]:
    """A client in the notebook, connected through a page in which Connect was clicked."""
    show().hello("click")
    one = SAMPIntegratedClient(name="notebook")
    one.connect(web=relay)
    yield one
    one.disconnect()
