"""Derived classes of programs, and what the package does for them: `pyvo.samp.client.derived_classes`."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from astropy.table import Table

from pyvo.samp import SAMPClient, SAMPClientError, SAMPHubError, SAMPHubProxy, SAMPHubServer, SAMPIntegratedClient

from .conftest import Connect, record
from .derived_families import (
    FAMILIES,
    OwnInit,
    Standard,
    Web,
    WebOwnInit,
    WebProxy,
    check_disconnect,
    check_messages,
)

Family = Callable[..., Any]


@pytest.fixture
def family_hub(make_hub: Callable[..., SAMPHubServer], monkeypatch: pytest.MonkeyPatch) -> SAMPHubServer:
    """A hub with both profiles, which consents to everything, and a variable for ``client.env.get``."""
    monkeypatch.setenv("SAMP_TEST", "a value")
    return make_hub(web_profile=True, web_profile_dialog=lambda *_: True, web_profile_mtypes=["*"])


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, family_hub: SAMPHubServer) -> Any:
    """A family of derived classes; ``connect`` connects a client, which is disconnected after the test."""
    made: list[Any] = []

    def connect_to(client: Any) -> Any:
        made.append(client)
        if isinstance(client, Web):
            client.connect(f"http://127.0.0.1:{family_hub._web_port}/")
        else:
            client.connect()
        return client

    class Made:
        kind: Any = request.param
        connect = staticmethod(connect_to)

    yield Made
    for client in made:
        client.disconnect()


def test_before_connect(family: Any) -> None:
    """Derived clients are not connected, running or registered at first, and may be disconnected."""
    derived = family.kind()
    assert (derived.is_connected, derived.hub.is_connected) == (False, False)
    derived.disconnect()
    for kind in (OwnInit, WebOwnInit):
        client = kind(SAMPHubProxy())
        assert (client.is_running, client.is_registered) == (False, False)
        assert client.get_private_key() is None
        assert client.get_public_id() is None
        with pytest.raises(SAMPClientError):
            client.register()
        client.stop()


@pytest.mark.parametrize("base", [SAMPClient, SAMPIntegratedClient, SAMPHubProxy])
def test_init_that_sets_nothing(base: type) -> None:
    """An object whose ``__init__`` sets nothing can be used until it needs a connection."""
    made: Any = type("Nothing", (base,), {"__init__": lambda self: None})()
    for name in ("is_connected", "is_running", "is_registered"):
        if hasattr(base, name):
            assert getattr(made, name) is False
    if base is SAMPClient:
        made.stop()
        with pytest.raises(SAMPClientError, match="no connection"):
            made.register()
    else:
        made.disconnect()


def test_send_and_receive(family: Any, connect: Connect) -> None:
    """All ways of sending and receiving work, also after the client has connected again."""
    plain, derived = connect("plain"), family.kind()
    for _ in range(2):
        family.connect(derived)
        check_messages(derived, plain)
        check_disconnect(derived, plain)


def test_not_callable(family: Any, connect: Connect) -> None:
    """A derived client that is not callable can send and wait for responses."""
    plain = connect("plain")
    plain.bind_receive_call("x-test.echo", lambda key, sender, mtype, params, extra: params)
    derived = family.connect(family.kind(receives=False))
    assert derived.ecall_and_wait("plain", "x-test.echo", 10, n=3)["samp.result"] == {"n": "3"}
    assert plain.get_subscriptions(derived.get_public_id()) == {}


def test_tables(family: Any, connect: Connect) -> None:
    """Derived clients can send and receive tables, and have a list of clients."""
    plain, derived = connect("plain"), family.connect(family.kind())
    table = Table({"a": [1, 2]})
    for sender, receiver, name in ((derived, plain, "plain"), (plain, derived, "derived")):
        got: list[Table] = []

        def load(table: Table, got: Any = got) -> None:
            got.append(table)

        receiver.on("table.load.votable")(load)
        assert sender.wait_for(name, 10, "table.load.votable").name == name
        assert sender.send(table, to=name, timeout=20).ok
        assert list(got[0]["a"]) == [1, 2]


def test_the_hub_stops(family: Any, family_hub: SAMPHubServer, connect: Connect) -> None:
    """The loss of a hub that shuts down is found, even if the derived class pulls its last message."""
    derived = family.connect(family.kind())
    connect("plain").ecall_and_wait("derived", "samp.app.ping", 10)  # it has started to pull
    gone = threading.Event()
    derived.client.on_disconnected = lambda reason: gone.set()
    family_hub.stop()
    assert gone.wait(10)
    assert not derived.is_connected
    assert not derived.client.is_registered
    assert not derived.client._registered_event.is_set()
    with pytest.raises(SAMPHubError):
        derived.ping()
    derived.disconnect()


def test_state_that_a_derived_class_sets(hub: SAMPHubServer) -> None:
    """The state that a derived class sets is used until the base class changes it."""
    proxy = SAMPHubProxy()
    proxy.connect()
    client = OwnInit(proxy)
    client.register()
    key = client._private_key
    assert (client.is_running, client.is_registered, key) == (True, True, client.get_private_key())
    client._is_registered = False  # its own `unregister` does this before it uses the key
    assert (client.is_registered, client._private_key) == (False, key)
    client._is_registered = True
    assert client.is_registered
    client._is_registered = False
    client.unregister()
    client.register()
    assert client.is_registered
    assert client._private_key != key
    client._is_running = False
    assert not client.is_running
    client.stop()
    proxy.disconnect()


def test_handler_tables() -> None:
    """The tables of handlers show the bound handlers, and setting an item binds a handler."""
    client = OwnInit(SAMPHubProxy())
    six: Any = lambda a, b, c, d, e, f: None  # noqa: E731
    client.bind_receive_message("a.b", six, metadata={"x": 1})
    assert client._call_bindings["a.b"] == client._notification_bindings["a.b"] == [six, {"x": "1"}]
    assert set(client._call_bindings) == {"samp.app.ping", "client.env.get", "a.b"}
    assert "a.b" in repr(client._call_bindings)
    client._call_bindings["c.*"] = [six, {}]
    assert client._handlers_or_raise.for_call("c.d").function is six
    del client._call_bindings["c.*"]
    with pytest.raises(KeyError):
        del client._call_bindings["c.*"]
    with pytest.raises(SAMPClientError):
        client.unbind_receive_call("c.*")
    client._call_bindings = client._call_bindings
    assert len(client._call_bindings) == 3
    client._response_bindings["tag"] = six
    assert client._response_bindings == {"tag": six}
    client._response_bindings = {}
    with pytest.raises(SAMPClientError):
        client.unbind_receive_response("tag")


def test_own_registration(hub: SAMPHubServer, connect: Connect) -> None:
    """A class may register with the operations of the proxy."""

    class Own(OwnInit):
        def register(self) -> None:
            registration = self.hub.register(self.hub.lockfile["samp.secret"])
            self._public_id, self._private_key = registration["samp.self-id"], registration["samp.private-key"]
            self._hub_id = registration["samp.hub-id"]
            self._set_xmlrpc_callback()
            self._declare_subscriptions({"x-test.more": {}})
            self.declare_metadata()
            self._is_registered = True

    class Integrated(Standard):
        kind = Own

    plain, derived = connect("plain"), Integrated()
    derived.connect()
    try:
        assert plain.ecall_and_wait("derived", "samp.app.ping", 10)["samp.status"] == "samp.ok"
        assert "x-test.more" in plain.get_subscriptions(derived.get_public_id())
    finally:
        derived.disconnect()


def test_connect_of_the_base_class(hub: SAMPHubServer, connect: Connect) -> None:
    """A class may replace only its client, its proxy or the method `register`."""

    class Proxy(SAMPHubProxy):
        pass

    class Client(SAMPClient):
        registered = 0

        def register(self) -> None:
            Client.registered += 1
            super().register()

    class OwnClient(SAMPIntegratedClient):
        def __init__(self) -> None:
            self.hub = Proxy()
            self.client = Client(self.hub, name="derived")

    class Arguments(SAMPIntegratedClient):
        def __init__(self) -> None:
            self.hub = Proxy()
            self.client = None
            self.client_arguments = {"name": "derived"}

    class CallsTheBase(SAMPIntegratedClient):
        def __init__(self) -> None:
            super().__init__(name="derived")

        def connect(self) -> None:
            self.hub.connect()
            self.client = Client(self.hub, **self.client_arguments)
            self.client.start()
            self.client.register()

    plain = connect("plain")
    for kind in (OwnClient, Arguments, CallsTheBase):
        derived: Any = kind()
        derived.connect()
        try:
            assert kind is CallsTheBase or type(derived.hub) is Proxy
            derived.bind_receive_call("x-test.call", record(derived, {"n": 1}))
            assert plain.ecall_and_wait("derived", "x-test.call", 10)["samp.result"] == {"n": "1"}
        finally:
            derived.disconnect()
    assert Client.registered == 2


def test_a_loop_that_waits_for_registration(family_hub: SAMPHubServer) -> None:
    """A loop that waits for a registration ends when the client is stopped; it may be started again."""
    proxy = WebProxy()
    proxy.connect(f"http://127.0.0.1:{family_hub._web_port}/")
    client = WebOwnInit(proxy)
    for _ in range(2):
        client.start()
        client.start()
        thread = client._thread
        assert thread.is_alive()
        client.stop()
        assert not thread.is_alive()
        assert not client._registered_event.is_set()
    proxy.disconnect()


def test_garbage_collection(hub: SAMPHubServer, connect: Connect) -> None:
    """A derived client that the program no longer references unregisters."""
    plain, derived = connect("plain"), Standard()
    derived.connect()
    left = threading.Event()
    plain.bind_receive_notification("samp.hub.event.unregister", lambda *_: left.set())
    gone = weakref.ref(derived.client)
    del derived
    gc.collect()
    assert gone() is None
    assert left.wait(10)
