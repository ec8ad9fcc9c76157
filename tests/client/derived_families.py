"""
Families of derived classes, for both profiles, that do not call the ``__init__`` of their base classes.

They set and use the attributes of the base classes in `astropy.samp`; `tests.interop.test_jsamp` uses them with
JSAMP's hub.
"""

from __future__ import annotations

import threading
from typing import Any

from pyvo.samp import SAMPClient, SAMPClientError, SAMPHubError, SAMPHubProxy, SAMPIntegratedClient
from pyvo.samp.utils import SAMPXXEServerProxy, ServerProxyPool


class OwnInit(SAMPClient):
    """A client of the Standard Profile."""

    def __init__(self, hub: Any, name: str = "derived", receives: bool = True) -> None:
        self._is_running = False
        self._is_registered = False
        self._metadata = {"samp.name": name}
        self._callable = receives
        self.client = None
        self._public_id = None
        self._private_key = None
        self._hub_id = None
        self._notification_bindings = {}
        self._call_bindings = {"samp.app.ping": [self._ping, {}], "client.env.get": [self._client_env_get, {}]}
        self._response_bindings = {}
        self.hub = hub
        self._registration_lock = threading.Lock()
        self._registered_event = threading.Event()
        self._thread = None


class Standard(SAMPIntegratedClient):
    """A client that creates its `SAMPClient` when it connects."""

    kind: Any = OwnInit

    def __init__(self, name: str = "derived", receives: bool = True) -> None:
        self.hub = SAMPHubProxy()
        self.own_arguments = {"name": name, "receives": receives}
        self.client = None

    def connect(self, hub: Any = None, hub_params: Any = None, pool_size: int = 20) -> None:
        self.hub.connect(hub, hub_params, pool_size)
        self.client = self.kind(self.hub, **self.own_arguments)
        self.client.start()
        self.client.register()


class WebProxy(SAMPHubProxy):
    """A connection to a hub with the Web Profile, over connections of the standard library."""

    @property
    def _samp_hub(self) -> Any:
        return self.proxy.samp.webhub

    def connect(self, url: str, pool_size: int = 20) -> None:
        self._connected = False
        self.proxy = ServerProxyPool(pool_size, SAMPXXEServerProxy, url)
        try:
            self.ping()
        except OSError as error:
            raise SAMPHubError(f"no hub at {url}") from error
        self._connected = True

    def register(self, identity: Any) -> Any:
        return self._samp_hub.register(identity)

    def allow_reverse_callbacks(self, private_key: str, allow: str) -> Any:
        return self._samp_hub.allowReverseCallbacks(private_key, allow)

    def pull_callbacks(self, private_key: str, timeout: int) -> Any:
        return self._samp_hub.pullCallbacks(private_key, str(timeout))


class PlainWebProxy(WebProxy):
    """The same over the connections of the base class."""

    def connect(self, url: str, pool_size: int = 20) -> None:
        SAMPHubProxy.connect(self, hub_params={"samp.hub.xmlrpc.url": url}, pool_size=pool_size)


class WebOwnInit(OwnInit):
    """A client of the Web Profile, which pulls its messages."""

    #: Pause between two pulls in seconds; real clients may pull without a pause.
    pause = 0.02

    def __init__(self, hub: Any, name: str = "derived", receives: bool = True) -> None:
        super().__init__(hub, name, receives)
        self._paused = threading.Event()
        if receives:
            self._thread = threading.Thread(target=self._serve_forever, daemon=True)

    def _serve_forever(self) -> None:
        while self.is_running:
            self._registered_event.wait()
            with self._registration_lock:
                if not self._is_registered:
                    return
                results = self.hub.pull_callbacks(self.get_private_key(), 0)
            for result in results:
                kind, params = result["samp.methodName"], result["samp.params"]
                if kind == "receiveNotification":
                    self.receive_notification(self._private_key, *params)
                elif kind == "receiveCall":
                    self.receive_call(self._private_key, *params)
                elif kind == "receiveResponse":
                    self.receive_response(self._private_key, *params)
            self._paused.wait(self.pause)

    def register(self) -> None:
        if not self.hub.is_connected:
            raise SAMPClientError("there is no hub")
        if self._private_key is not None:
            raise SAMPClientError("the client is registered already")
        registration = self.hub.register({"samp.name": self._metadata["samp.name"]})
        self._public_id = registration["samp.self-id"]
        self._private_key = registration["samp.private-key"]
        self._hub_id = registration["samp.hub-id"]
        if self._callable:
            self._declare_subscriptions()
            self.hub.allow_reverse_callbacks(self._private_key, "1")
        self.declare_metadata()
        self._is_registered = True
        self._registered_event.set()

    def unregister(self) -> None:
        with self._registration_lock:
            super().unregister()


class Web(SAMPIntegratedClient):
    """A client that creates its `SAMPClient` when it connects with the Web Profile."""

    proxy: Any = WebProxy

    def __init__(self, name: str = "derived", receives: bool = True) -> None:
        self.hub = self.proxy()
        self.own_arguments = {"name": name, "receives": receives}
        self.client = None

    def connect(self, url: str = "http://127.0.0.1:21012/", pool_size: int = 20) -> None:
        self.hub.connect(url, pool_size)
        self.client = WebOwnInit(self.hub, **self.own_arguments)
        self.client.start()
        self.client.register()


class PlainWeb(Web):
    """The same over the connections of the base class."""

    proxy = PlainWebProxy


FAMILIES = (Standard, Web, PlainWeb)


def check_messages(derived: Any, plain: SAMPIntegratedClient) -> None:
    """Check all ways of sending and receiving between a derived client and a plain one, both connected."""
    client, derived_id = derived.client, derived.get_public_id()
    assert plain.get_metadata(derived_id)["samp.name"] == "derived"
    assert (derived.is_connected, client.is_running, client.is_registered) == (True, True, True)
    assert (client._is_running, client._is_registered) == (True, True)
    assert client._registered_event.is_set()
    assert (client._public_id, client._private_key) == (client.get_public_id(), client.get_private_key())
    assert client._hub_id in plain.get_registered_clients()

    # Receiving
    changed: Any = threading.Condition()
    seen: list[Any] = []

    def note(*args: Any) -> None:
        with changed:
            seen.append(args)
            changed.notify_all()

    def wait_for(count: int) -> None:
        with changed:
            assert changed.wait_for(lambda: len(seen) >= count, 10), seen

    def double(key: str, sender: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        derived.ereply(msg_id, "samp.ok", result={"n": 2 * int(params["n"])})

    derived.bind_receive_call("x-test.double", double)
    assert client._call_bindings["x-test.double"] == [double, {}]
    assert plain.ecall_and_wait(derived_id, "x-test.double", 10, n=21)["samp.result"] == {"n": "42"}
    assert plain.ecall_and_wait(derived_id, "samp.app.ping", 10)["samp.status"] == "samp.ok"
    response = plain.ecall_and_wait(derived_id, "client.env.get", 10, name="SAMP_TEST")
    assert response["samp.result"] == {"value": "a value"}
    derived.bind_receive_notification("x-test.note", note)
    assert client._notification_bindings["x-test.note"] == [note, {}]
    plain.enotify(derived_id, "x-test.note", n=1)
    wait_for(1)
    assert seen[0][3:5] == ("x-test.note", {"n": "1"})

    # Sending, and responses
    plain.bind_receive_call("x-test.echo", lambda key, sender, mtype, params, extra: params)
    assert derived.ecall_and_wait("plain", "x-test.echo", 10, n=3)["samp.result"] == {"n": "3"}
    derived.bind_receive_response("tag", note)
    assert client._response_bindings["tag"] is note
    for count in (2, 3):
        derived.ecall(plain.get_public_id(), "tag", "x-test.echo", n=count)
        wait_for(count)
        assert seen[-1][2:] == ("tag", {"samp.status": "samp.ok", "samp.result": {"n": str(count)}})


def check_disconnect(derived: Any, plain: SAMPIntegratedClient) -> None:
    """Disconnect a derived client, and check that the attributes it set have the right values."""
    client, derived_id, thread = derived.client, derived.get_public_id(), derived.client._thread
    derived.disconnect()
    assert derived_id not in plain.get_registered_clients()
    assert (derived.is_connected, client.is_running, client.is_registered) == (False, False, False)
    assert (client._is_running, client._is_registered) == (False, False)
    assert (client._public_id, client._private_key, client._hub_id) == (None, None, None)
    assert not client._registered_event.is_set()
    assert thread is None or not thread.is_alive()
    derived.disconnect()
