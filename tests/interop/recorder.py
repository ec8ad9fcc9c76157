# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Record the messages and responses that a client of this package receives, in order, and wait for them."""
from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from pyvo.samp import SAMPIntegratedClient


class Received(NamedTuple):
    """
    One delivery: a notification or call with its MType and params, or a response with its tag and the response map.
    """

    kind: str
    sender: str
    name: str
    content: Mapping[str, Any]


Accept = Callable[[Received], bool]


class Recorder:
    """Records what a client receives, and replies to each call with its parameters.

    Parameters
    ----------
    client : SAMPIntegratedClient
        A connected client. The recorder binds its functions to `mtype` and to responses with `tag`.
    mtype : str
        The MType to subscribe to, possibly a wildcard.
    tag : str
        The msg-tag whose responses are recorded.
    """

    def __init__(self, client: SAMPIntegratedClient, mtype: str, tag: str = "tag") -> None:
        self._client = client
        self._all: list[Received] = []
        self._changed = threading.Condition()
        client.bind_receive_notification(mtype, self._notification)
        client.bind_receive_call(mtype, self._call)
        client.bind_receive_response(tag, self._response)

    def _record(self, *fields: Any) -> None:
        with self._changed:
            self._all.append(Received(*fields))
            self._changed.notify_all()

    def _notification(
        self, key: str, sender: str, msg_id: None, mtype: str, params: Mapping[str, Any], extra: Mapping[str, Any]
    ) -> None:
        self._record("notification", sender, mtype, params)

    def _call(
        self, key: str, sender: str, msg_id: str, mtype: str, params: Mapping[str, Any], extra: Mapping[str, Any]
    ) -> None:
        self._record("call", sender, mtype, params)
        self._client.ereply(msg_id, "samp.ok", result={"echo": params})

    def _response(self, key: str, sender: str, tag: str, response: Mapping[str, Any]) -> None:
        self._record("response", sender, tag, response)

    def wait(self, count: int, accept: Accept = lambda _: True, timeout: float = 30.0) -> list[Received]:
        """Wait until there are `count` acceptable deliveries; return all acceptable ones."""

        def found() -> list[Received]:
            return [one for one in self._all if accept(one)]

        with self._changed:
            if not self._changed.wait_for(lambda: len(found()) >= count, timeout):
                pytest.fail(f"{len(found())} deliveries instead of {count} within {timeout} s: {self._all}")
            return found()
