# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The connection of a bridge to its hub."""

from __future__ import annotations

from typing import Any

import pytest

from pyvo.samp import SAMPProxyError
from pyvo.samp.bridge.hub_side import Delivery, HubSide, Registration


class RecordingReceiver:
    """Records the deliveries for a registration."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def receive(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)


def test_a_message_that_arrives_while_its_recipient_is_unregistered_is_received(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R23: the bridge knows why the recipient is unregistered, and tells the sender."""
    side, receiver = HubSide(None, print), RecordingReceiver()
    registration = side.registrations["key"] = Registration("key", "c1", receiver)

    def deliver(*_args: Any) -> None:
        side.deliver("key", "call", "c2", "msg-id", {"samp.mtype": "x.y", "samp.params": {}}, 10)

    monkeypatch.setattr(side.hub, "unregister_quietly", deliver)
    side.unregister(registration)
    assert [delivery.msg_id for delivery in receiver.deliveries] == ["msg-id"]
    with pytest.raises(SAMPProxyError, match="private key"):
        deliver()
