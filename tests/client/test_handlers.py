"""Tables of handlers, and error texts for the senders of calls, without a hub."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvo.samp import SAMPClientError, SAMPValueError
from pyvo.samp.client.handlers import Binding, HandlerTable, error_text, handler_slot, release_slot, to_result
from pyvo.samp.protocol.timeouts import to_whole_seconds


def six(key: Any, sender: Any, msg_id: Any, mtype: Any, params: Any, extra: Any) -> Any:
    return (key, sender, msg_id, mtype, params, extra)


def five(key: Any, sender: Any, mtype: Any, params: Any, extra: Any) -> Any:
    return (key, sender, mtype, params, extra)


def test_subscriptions() -> None:
    """R12: binding a handler for calls or notifications subscribes to the MType, with the annotations of both."""
    handlers = HandlerTable()
    handlers.bind_call("a.b", six, {"x": 1})
    handlers.bind_notification("a.b", six, {"y": [2]})
    handlers.bind_notification("c.*", five)
    assert handlers.subscriptions() == {"a.b": {"x": "1", "y": ["2"]}, "c.*": {}}
    handlers.unbind_call("a.b")
    assert handlers.subscriptions() == {"a.b": {"y": ["2"]}, "c.*": {}}
    handlers.unbind_notification("a.b")
    assert handlers.subscriptions() == {"c.*": {}}
    assert handlers.for_notification("c.d") == Binding(five, False, {})
    assert handlers.for_notification("c") is None
    assert handlers.for_call("c.d") is None


@pytest.mark.parametrize("pattern", ["", "a.*.b", "a*", "*.a", "a..b", ".", "a b"])
def test_invalid_patterns(pattern: str) -> None:
    """R12: a pattern that is not valid in a subscription cannot be bound."""
    with pytest.raises(SAMPValueError):
        HandlerTable().bind_call(pattern, six)


def test_tags() -> None:
    """R20: any string is a tag."""
    handlers = HandlerTable()
    for tag in ("", "a b", "*"):
        handlers.bind_response(tag, six)
        assert handlers.responses[tag] is six
        handlers.unbind_response(tag)
        with pytest.raises(SAMPClientError):
            handlers.unbind_response(tag)
    with pytest.raises(SAMPClientError):
        handlers.bind_response("tag", None)  # type: ignore[arg-type]


def test_parts_of_a_message() -> None:
    """The handler gets MType, parameters and the extra keys; the message is not modified."""
    message = {"samp.mtype": "a.b", "samp.params": {"n": "1"}, "my.key": "v"}
    copy = dict(message)
    with_id, without_id = (Binding.from_function(function, None) for function in (six, five))
    assert with_id.run("k", "c1", "m1", message) == ("k", "c1", "m1", "a.b", {"n": "1"}, {"my.key": "v"})
    assert without_id.run("k", "c1", "m1", message) == ("k", "c1", "a.b", {"n": "1"}, {"my.key": "v"})
    assert message == copy


def test_functions_without_a_signature() -> None:
    """A function without a signature is called with six arguments."""
    assert Binding.from_function(max, None).accepts_msg_id
    assert Binding.from_function(print, None).accepts_msg_id


def test_results() -> None:
    """The return value of a handler becomes a map, or causes an error."""
    assert to_result(None) == {}
    assert to_result({"n": 1}) == {"n": "1"}
    with pytest.raises(SAMPClientError, match="map"):
        to_result(7)


@given(st.text())
def test_error_text(text: str) -> None:
    """R2: the text of an error response has only characters that every hub accepts."""
    result = error_text(ValueError(text))
    assert result
    assert all(c in "\t\n" or " " <= c <= "~" for c in result)


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("0", 0), (0, 0), (-3, 0), ("-1", 0), ("10", 10), (10.0, 10), (0.2, 1), ("0.2", 1), (1e3, 1000), (True, 1)],
)
def test_whole_seconds(timeout: Any, seconds: int) -> None:
    """R22: a fraction of a second does not become 0, which means no limit."""
    assert to_whole_seconds(timeout) == seconds


@pytest.mark.parametrize("timeout", ["", "soon", None, float("nan"), float("inf"), [], b"1x"])
def test_invalid_timeouts(timeout: Any) -> None:
    """R22: a timeout that is not a number is rejected."""
    with pytest.raises(SAMPValueError, match="timeout"):
        to_whole_seconds(timeout)


def test_handler_slots() -> None:
    """R24: a slot is released once: when the handler calls `release_slot`, or at its end. Slots can be nested."""
    released: list[str] = []
    release_slot()
    with handler_slot(lambda: released.append("outer")):
        with handler_slot(lambda: released.append("inner")):
            pass
        assert released == ["inner"]
        release_slot()
        release_slot()
        assert released == ["inner", "outer"]
    assert released == ["inner", "outer"]
    with pytest.raises(RuntimeError), handler_slot(lambda: released.append("third")):
        raise RuntimeError
    assert released[-1] == "third"


@pytest.mark.parametrize(
    ("handler", "accepts_msg_id"),
    [
        (lambda private_key, sender_id, mtype, params, extra, more=None: None, False),
        (lambda key, sender, MType, params, extra, more=None: None, False),
        (lambda private_key, sender_id, msg_id, mtype, params, extra=None: None, True),
        (lambda a, b, c, d, e, f=None: None, True),
        (lambda *args: None, True),
        (lambda key, sender, *mtype: None, True),
        (lambda key, sender, mtype, params, extra, more: None, True),
    ],
)
def test_parameters_with_defaults(handler: Any, accepts_msg_id: bool) -> None:
    """If a handler accepts five and six arguments, the name of its third parameter decides."""
    assert Binding.from_function(handler, None).accepts_msg_id is accepts_msg_id
