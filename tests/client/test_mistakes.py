"""Mistakes of programs, and the errors that these and other programs get."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pyvo.samp import (
    SAMPClientError,
    SAMPHubProxy,
    SAMPHubServer,
    SAMPIntegratedClient,
    SAMPProxyError,
    SAMPTypeError,
    SAMPValueError,
    SAMPWarning,
)

Reply = Callable[[SAMPIntegratedClient, str], Any]


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (lambda bob, msg_id: bob.ereply(msg_id, "samp.ok", "just a text"), "samp.result must be a map"),
        (lambda bob, msg_id: bob.ereply(msg_id, "samp.ok", [1, 2]), "samp.result must be a map"),
        (lambda bob, msg_id: bob.ereply(msg_id, "ok", {}), "samp.ok, samp.warning or samp.error"),
        (lambda bob, msg_id: bob.ereply(msg_id, "samp.error", error="went wrong"), "samp.error must be a map"),
        (lambda bob, msg_id: bob.reply(msg_id, {"samp.result": {}}), "samp.ok, samp.warning or samp.error"),
        (lambda bob, msg_id: bob.reply(msg_id, None), "A response is a map, not None"),
    ],
)
def test_invalid_replies(pair: tuple[Any, Any], reply: Reply, complaint: str) -> None:
    """R23: a handler that returns an invalid result has failed, and the caller gets an error that says why."""
    alice, bob = pair
    bob.bind_receive_call("test.x", lambda key, sender, msg_id, *rest: reply(bob, msg_id))
    response = alice.ecall_and_wait("bob", "test.x", 10)
    assert response["samp.status"] == "samp.error"
    assert complaint in response["samp.error"]["samp.errortxt"]


@pytest.mark.filterwarnings("ignore:.*beyond ASCII")
def test_a_reply_that_the_hub_rejects(pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """R23: JSAMP's hub rejects text that is not ASCII; the caller gets an error response instead."""
    alice, bob = pair
    original_reply = SAMPHubProxy.reply

    def reply(self: SAMPHubProxy, private_key: str, msg_id: str, response: Any) -> Any:
        if not str(response).isascii():
            raise SAMPProxyError(1, "Bad SAMP string")
        return original_reply(self, private_key, msg_id, response)

    monkeypatch.setattr(SAMPHubProxy, "reply", reply)
    bob.bind_receive_call("test.x", lambda key, sender, mtype, params, extra: {"name": "Müller"})
    response = alice.ecall_and_wait("bob", "test.x", 10)
    assert response["samp.status"] == "samp.error"
    assert response["samp.error"]["samp.errortxt"] == "The hub rejected the reply: Bad SAMP string"


@pytest.mark.parametrize("message", [None, "text", {}, {"samp.mtype": "a", "samp.params": "text"}])
def test_invalid_messages(pair: tuple[Any, Any], message: Any) -> None:
    """The client rejects an invalid message before anything is sent."""
    alice, bob = pair
    bob.bind_receive_notification("*", lambda *args: None)
    with pytest.raises((SAMPTypeError, SAMPValueError)):
        alice.notify("bob", message)


def test_coroutine_functions(pair: tuple[Any, Any]) -> None:
    """Coroutine functions are rejected as handlers, because this client would not await them."""
    alice, _ = pair

    async def handler(*args: Any) -> None:
        raise AssertionError

    class Callable:
        async def __call__(self, *args: Any) -> None:
            raise AssertionError

    for function in (handler, partial(handler, 1), Callable()):
        with pytest.raises(SAMPClientError, match="AsyncSAMPClient"):
            alice.bind_receive_call("test.x", function)


def test_a_tag_that_is_a_number(pair: tuple[Any, Any]) -> None:
    """R4, R20: a number as a tag is sent as a string, and the handler that is bound to it gets the response."""
    alice, bob = pair
    bob.bind_receive_call("test.x", lambda key, sender, mtype, params, extra: {"y": 1})
    import queue

    responses: queue.Queue[Any] = queue.Queue()
    alice.bind_receive_response(7, lambda key, sender, tag, response: responses.put((tag, response["samp.result"])))
    alice.ecall("bob", 7, "test.x")
    assert responses.get(timeout=10) == ("7", {"y": "1"})
    alice.unbind_receive_response(7)


@pytest.mark.parametrize(("error", "text"), [(KeyError("url"), "KeyError: 'url'"), (SystemExit(3), "SystemExit: 3")])
def test_error_texts_with_the_type_of_the_exception(pair: tuple[Any, Any], error: BaseException, text: str) -> None:
    alice, bob = pair

    def handler(key: str, sender: str, mtype: str, params: Any, extra: Any) -> None:
        raise error

    bob.bind_receive_call("test.x", handler)
    assert alice.ecall_and_wait("bob", "test.x", 10)["samp.error"]["samp.errortxt"] == text


def test_own_name(pair: tuple[Any, Any]) -> None:
    alice, _ = pair
    assert alice.get_metadata("ALICE")["samp.name"] == "Alice"


def test_warnings_name_the_line_of_the_program(pair: tuple[Any, Any]) -> None:
    alice, _ = pair
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        alice.enotify_all("test.nobody", name="é")
    assert [(warning.category, warning.filename) for warning in caught] == [(SAMPWarning, __file__)] * 2


@pytest.mark.parametrize("port", [-1, 65536, "x", None, 1.5])
def test_invalid_ports(port: Any) -> None:
    for make in (
        lambda: SAMPHubServer(port=port),
        lambda: SAMPHubServer(web_port=port),
        lambda: SAMPIntegratedClient(port=port),
    ):
        with pytest.raises(ValueError, match="A port must be a number from 0 to 65535"):
            make()


def test_a_relative_lockfile(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R35: the hub removes a lockfile with a relative path, even if the program has changed its directory."""
    (isolated / "sub").mkdir()
    monkeypatch.chdir(isolated)
    hub = SAMPHubServer(lockfile="a.lock", web_profile=False)
    hub.start()
    assert Path("a.lock").exists()
    os.chdir("sub")
    hub.stop()
    assert not (isolated / "a.lock").exists()
