# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The connection of a bridge to its hub."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pyvo.samp import SAMPProxyError
from pyvo.samp.bridge.hub_side import Delivery, HubSide, Registration


def test_a_message_that_arrives_while_its_recipient_is_unregistered_is_received(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R23: the bridge knows why the recipient is unregistered, and tells the sender."""
    side, received = HubSide(None, print), list[Delivery]()
    registration = side.registrations["key"] = Registration("key", "c1", SimpleNamespace(receive=received.append))

    def deliver(*_args: Any) -> None:
        side.deliver("key", "call", "c2", "msg-id", {"samp.mtype": "x.y", "samp.params": {}}, 10)

    monkeypatch.setattr(side.hub, "unregister_quietly", deliver)
    side.unregister(registration)
    assert [delivery.msg_id for delivery in received] == ["msg-id"]
    with pytest.raises(SAMPProxyError, match="private key"):
        deliver()
