# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The XML-RPC calls that make deliveries."""

from __future__ import annotations

import pytest

from pyvo.samp.broker.deliveries import CALL, NOTIFICATION, RESPONSE, Delivery, EncodedMessage
from pyvo.samp.errors import SAMPValueError
from pyvo.samp.standard_profile.callback_sender import encode_callback
from pyvo.samp.transport.xmlrpc_writer import PreEncoded, write_call

MESSAGE = EncodedMessage({"samp.mtype": "a.b", "samp.params": {"text": "50 %b of <é>"}})


@pytest.mark.parametrize("tag", ["0123456789abcdef", "", "50 %b", "a<b&c", "\r\n", "é", "٣", "%%", "\\"])
@pytest.mark.parametrize("kind", [CALL, RESPONSE])
def test_a_call_and_a_response_are_written_as_by_write_call(kind: str, tag: str) -> None:
    """R32: key, sender and tag come before the message, whichever characters the tag contains."""
    written = b"".join(encode_callback(Delivery(kind, "c2", "00ff", "c1", tag, MESSAGE)))
    assert written == write_call(f"samp.client.{kind}", ["00ff", "c1", tag, PreEncoded(MESSAGE.encoded())])


def test_a_notification_is_written_as_by_write_call() -> None:
    """R32: a notification has no tag."""
    written = b"".join(encode_callback(Delivery(NOTIFICATION, "c2", "00ff", "hub", None, MESSAGE)))
    assert written == write_call("samp.client.receiveNotification", ["00ff", "hub", PreEncoded(MESSAGE.encoded())])


def test_the_message_is_not_copied_for_each_recipient() -> None:
    """Recipients share the bytes of a message."""
    deliveries = [Delivery(NOTIFICATION, "c2", key, "c1", None, MESSAGE) for key in ("00ff", "11ee")]
    one, other = (encode_callback(delivery) for delivery in deliveries)
    assert one[1] is other[1]


def test_a_tag_that_xml_does_not_allow_is_rejected() -> None:
    """XML does not allow control characters."""
    with pytest.raises(SAMPValueError):
        encode_callback(Delivery(RESPONSE, "c2", "00ff", "c1", "a\x01b", MESSAGE))
