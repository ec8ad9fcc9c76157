# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Wait for other clients to register and unregister, by the events of the hub."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pyvo.samp import SAMPIntegratedClient, SAMPProxyError


class Witness:
    """Waits for other clients, woken by the events of the hub.

    Parameters
    ----------
    client : SAMPIntegratedClient
        A connected client; gets a subscription to all hub events.
    """

    def __init__(self, client: SAMPIntegratedClient) -> None:
        self._client = client
        self._events = 0
        self._changed = threading.Condition()
        client.bind_receive_notification("samp.hub.event.*", self._on_event)

    def _on_event(
        self, key: str, sender: str, msg_id: str | None, mtype: str, params: Mapping[str, Any], extra: Mapping[str, Any]
    ) -> None:
        with self._changed:
            self._events += 1
            self._changed.notify_all()

    def arrival(self, name: str, mtype: str = "samp.app.ping", timeout: float = 60.0) -> str:
        """Wait until a client of that name has subscribed to `mtype`; return its id."""
        return self._wait(lambda: self._find(name, mtype), f"{name} has not come", timeout)

    def departure(self, client_id: str, timeout: float = 30.0) -> None:
        """Wait until that client is no longer registered."""
        self._wait(
            lambda: client_id not in self._client.get_registered_clients() or None,
            f"{client_id} has not gone", timeout,
        )

    def _find(self, name: str, mtype: str) -> str | None:
        for client_id in self._client.get_subscribed_clients(mtype):
            try:
                metadata = self._client.get_metadata(client_id)
            except SAMPProxyError:
                continue  # it has unregistered in between
            if metadata.get("samp.name") == name:
                return str(client_id)
        return None

    def _wait(self, find: Callable[[], Any], message: str, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                seen = self._events
            if (found := find()) is not None:
                return found
            # The hub is asked without the lock held; an event that came in between ends this wait at once.
            if not self._event_after(seen, deadline - time.monotonic()):
                pytest.fail(f"{message} within {timeout} s")

    def _event_after(self, seen: int, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._events != seen, timeout)
