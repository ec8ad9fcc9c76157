"""
The public names and signatures that existing programs use are still there.

The lists were made from such programs. Names and parameters may be added to them, but never changed.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import xmlrpc.client
from importlib.util import find_spec
from typing import Any

import pytest
from astropy.utils.exceptions import AstropyUserWarning

import pyvo.samp

MODULES = {
    "client": ["SAMPClient"],
    "constants": [
        "SAFE_MTYPES",
        "SAMP_ICON",
        "SAMP_STATUS_ERROR",
        "SAMP_STATUS_OK",
        "SAMP_STATUS_WARNING",
    ],
    "errors": ["SAMPClientError", "SAMPHubError", "SAMPProxyError", "SAMPWarning"],
    "hub": ["SAMPHubServer", "WebProfileDialog"],
    "hub_proxy": ["SAMPHubProxy"],
    "integrated_client": ["SAMPIntegratedClient"],
    "lockfile_helpers": ["check_running_hub", "create_lock_file", "get_main_running_hub", "read_lockfile"],
    "standard_profile": [],
    "utils": ["SAMPMsgReplierWrapper", "SAMPXXEServerProxy", "ServerProxyPool", "safe_xmlrpc_loads"],
    "vo_helpers": [
        "accessible_table",
        "connection",
        "find_client_id",
        "send_image_to",
        "send_product_to",
        "send_spectrum_to",
        "send_table_to",
    ],
    "web_profile": ["CLIENT_ACCESS_POLICY", "CROSS_DOMAIN"],
}

#: The names that `pyvo.samp` itself has.
TOP = [
    "SAFE_MTYPES",
    "SAMP_ICON",
    "SAMP_STATUS_ERROR",
    "SAMP_STATUS_OK",
    "SAMP_STATUS_WARNING",
    "SAMPClient",
    "SAMPClientError",
    "SAMPHubError",
    "SAMPHubProxy",
    "SAMPHubServer",
    "SAMPIntegratedClient",
    "SAMPMsgReplierWrapper",
    "SAMPProxyError",
    "SAMPWarning",
    "WebProfileDialog",
    "accessible_table",
    "conf",
    "connection",
    "find_client_id",
    "send_image_to",
    "send_product_to",
    "send_spectrum_to",
    "send_table_to",
]

CLIENT = "name=None, description=None, metadata=None, addr=None, port=0, callable=True"
BIND = "mtype, function, declare=True, metadata=None"

SIGNATURES = {
    "SAMPHubServer": "secret=None, addr=None, port=0, lockfile=None, timeout=0, client_timeout=0, mode='single', "
    "label='', web_profile=True, web_profile_dialog=None, web_port=21012, pool_size=20",
    "SAMPHubServer.start": "wait=False",
    "SAMPHubServer.stop": "",
    "SAMPHubServer.get_mtype_subtypes": "mtype",
    "SAMPHubProxy": "",
    "SAMPHubProxy.connect": "hub=None, hub_params=None, pool_size=20",
    "SAMPHubProxy.disconnect": "",
    "SAMPHubProxy.ping": "",
    "SAMPHubProxy.register": "secret",
    "SAMPHubProxy.set_xmlrpc_callback": "private_key, xmlrpc_addr",
    "SAMPHubProxy.unregister": "private_key",
    "SAMPHubProxy.declare_metadata": "private_key, metadata",
    "SAMPHubProxy.get_metadata": "private_key, client_id",
    "SAMPHubProxy.declare_subscriptions": "private_key, subscriptions",
    "SAMPHubProxy.get_subscriptions": "private_key, client_id",
    "SAMPHubProxy.get_registered_clients": "private_key",
    "SAMPHubProxy.get_subscribed_clients": "private_key, mtype",
    "SAMPHubProxy.notify": "private_key, recipient_id, message",
    "SAMPHubProxy.notify_all": "private_key, message",
    "SAMPHubProxy.call": "private_key, recipient_id, msg_tag, message",
    "SAMPHubProxy.call_all": "private_key, msg_tag, message",
    "SAMPHubProxy.call_and_wait": "private_key, recipient_id, message, timeout",
    "SAMPHubProxy.reply": "private_key, msg_id, response",
    "SAMPClient": f"hub, {CLIENT}",
    "SAMPClient.start": "",
    "SAMPClient.stop": "timeout=10.0",
    "SAMPClient.register": "",
    "SAMPClient.unregister": "",
    "SAMPClient.declare_metadata": "metadata=None",
    "SAMPClient.declare_subscriptions": "subscriptions=None",
    "SAMPClient.get_private_key": "",
    "SAMPClient.get_public_id": "",
    "SAMPIntegratedClient": CLIENT,
    "SAMPIntegratedClient.connect": "hub=None, hub_params=None, pool_size=20",
    "SAMPIntegratedClient.disconnect": "",
    "SAMPIntegratedClient.ping": "",
    "SAMPIntegratedClient.declare_metadata": "metadata",
    "SAMPIntegratedClient.get_metadata": "client_id",
    "SAMPIntegratedClient.get_subscriptions": "client_id",
    "SAMPIntegratedClient.get_registered_clients": "",
    "SAMPIntegratedClient.get_subscribed_clients": "mtype",
    "SAMPIntegratedClient.notify": "recipient_id, message",
    "SAMPIntegratedClient.notify_all": "message",
    "SAMPIntegratedClient.call": "recipient_id, msg_tag, message",
    "SAMPIntegratedClient.call_all": "msg_tag, message",
    "SAMPIntegratedClient.call_and_wait": "recipient_id, message, timeout",
    "SAMPIntegratedClient.reply": "msg_id, response",
    "SAMPIntegratedClient.enotify": "recipient_id, mtype, **params",
    "SAMPIntegratedClient.enotify_all": "mtype, **params",
    "SAMPIntegratedClient.ecall": "recipient_id, msg_tag, mtype, **params",
    "SAMPIntegratedClient.ecall_all": "msg_tag, mtype, **params",
    "SAMPIntegratedClient.ecall_and_wait": "recipient_id, mtype, timeout, **params",
    "SAMPIntegratedClient.ereply": "msg_id, status, result=None, error=None",
    "SAMPIntegratedClient.get_private_key": "",
    "SAMPIntegratedClient.get_public_id": "",
    "find_client_id": "conn, name",
    "send_table_to": "conn, table, client_name=None, name='data'",
    "send_product_to": "conn, url, mtype, client_name=None, name='data'",
    "send_spectrum_to": "conn, url, client_name=None, name='data'",
    "send_image_to": "conn, url, client_name=None, name='data'",
    "accessible_table": "table",
    "connection": "client_name='pyvo client', description='A generic PyVO client', **kwargs",
    "WebProfileDialog.handle_queue": "",
    "WebProfileDialog.show_dialog": "samp_name, details, client, origin",
    "WebProfileDialog.consent": "",
    "WebProfileDialog.reject": "",
}
for _owner in ("SAMPClient", "SAMPIntegratedClient"):
    SIGNATURES |= {
        f"{_owner}.receive_notification": "private_key, sender_id, message",
        f"{_owner}.receive_call": "private_key, sender_id, msg_id, message",
        f"{_owner}.receive_response": "private_key, responder_id, msg_tag, response",
        f"{_owner}.bind_receive_message": BIND,
        f"{_owner}.bind_receive_call": BIND,
        f"{_owner}.bind_receive_notification": BIND,
        f"{_owner}.bind_receive_response": "msg_tag, function",
        f"{_owner}.unbind_receive_notification": "mtype, declare=True",
        f"{_owner}.unbind_receive_call": "mtype, declare=True",
        f"{_owner}.unbind_receive_response": "msg_tag",
    }

PROPERTIES = {
    "SAMPHubServer": ["id", "is_running", "params"],
    "SAMPHubProxy": ["is_connected", "lockfile", "proxy"],
    "SAMPClient": ["is_running", "is_registered"],
    "SAMPIntegratedClient": ["is_connected", "hub", "client"],
}


def find(dotted: str) -> Any:
    found: Any = pyvo.samp
    for name in dotted.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_modules(module: str) -> None:
    """Each module has the names that programs import from it."""
    imported = importlib.import_module(f"pyvo.samp.{module}")
    for name in MODULES[module]:
        assert hasattr(imported, name), name
    assert getattr(pyvo.samp, module) is imported


@pytest.mark.parametrize("name", TOP)
def test_top_level(name: str) -> None:
    """`pyvo.samp` has the names that programs import from it."""
    assert getattr(pyvo.samp, name) is not None
    assert name in pyvo.samp.__all__
    assert name in dir(pyvo.samp)


def test_names_in_all_exist() -> None:
    """Each name in the ``__all__`` of a module exists."""
    for name in pyvo.samp.__all__:
        assert hasattr(pyvo.samp, name), name
    for info in pkgutil.walk_packages(pyvo.samp.__path__, "pyvo.samp."):
        if info.name.endswith("__main__"):
            continue
        if info.name == "pyvo.samp.jupyter_server.handler" and find_spec("jupyter_server") is None:
            continue  # it runs in a Jupyter server
        if f"{info.name}.".startswith("pyvo.samp.jupyter.") and find_spec("anywidget") is None:
            continue
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{info.name}.{name}"


@pytest.mark.parametrize("dotted", SIGNATURES)
def test_signatures(dotted: str) -> None:
    """Parameters keep their names, positions and defaults; new ones follow them and have defaults."""
    namespace: dict[str, Any] = {}
    exec(f"def old({SIGNATURES[dotted]}): ...", namespace)
    wanted = list(inspect.signature(namespace["old"]).parameters.values())
    target = find(dotted)
    there = list(inspect.signature(target).parameters.values())
    if there and there[0].name == "self":
        del there[0]
    positional = [p for p in wanted if p.kind is not p.VAR_KEYWORD]
    for actual, expected in zip(there, positional, strict=False):
        assert (actual.name, actual.default) == (expected.name, expected.default)
        assert actual.kind is actual.POSITIONAL_OR_KEYWORD
    assert len(there) >= len(wanted)
    for extra in there[len(positional) :]:
        assert extra.kind is extra.VAR_KEYWORD or extra.default is not extra.empty or extra.kind is extra.KEYWORD_ONLY
    if len(positional) < len(wanted):
        assert any(p.kind is p.VAR_KEYWORD for p in there)


@pytest.mark.parametrize("owner", PROPERTIES)
def test_properties(owner: str) -> None:
    """Objects have the attributes that programs read."""
    made = {
        "SAMPHubServer": lambda: pyvo.samp.SAMPHubServer(web_profile=False),
        "SAMPHubProxy": pyvo.samp.SAMPHubProxy,
        "SAMPClient": lambda: pyvo.samp.SAMPClient(pyvo.samp.SAMPHubProxy()),
        "SAMPIntegratedClient": pyvo.samp.SAMPIntegratedClient,
    }[owner]()
    for name in PROPERTIES[owner]:
        getattr(made, name)


def test_constants() -> None:
    """Constants have the values of the standard."""
    assert pyvo.samp.SAMP_STATUS_OK == "samp.ok"
    assert pyvo.samp.SAMP_STATUS_WARNING == "samp.warning"
    assert pyvo.samp.SAMP_STATUS_ERROR == "samp.error"
    assert pyvo.samp.SAMP_ICON.startswith(b"\x89PNG")
    assert isinstance(pyvo.samp.SAFE_MTYPES, list)
    assert "table.*" in pyvo.samp.SAFE_MTYPES
    assert pyvo.samp.SAMPHubServer.get_mtype_subtypes("a.b.c") == ["a.b.c", "a.b.*", "a.*", "*"]
    assert pyvo.samp.conf.use_internet in (True, False)
    assert pyvo.samp.conf.n_retries >= 0


def test_base_classes_of_errors() -> None:
    """A `SAMPProxyError` is a fault of the standard library, and a `SAMPWarning` is a warning of Astropy."""
    fault = pyvo.samp.SAMPProxyError(3, "text")
    assert isinstance(fault, xmlrpc.client.Fault)
    assert (fault.faultCode, fault.faultString) == (3, "text")
    assert issubclass(pyvo.samp.SAMPWarning, AstropyUserWarning)


def test_dialog_has_queues() -> None:
    """A dialog has the attributes for the queues, which the hub sets."""
    dialog = pyvo.samp.WebProfileDialog()
    assert hasattr(dialog, "queue_request")
    assert hasattr(dialog, "queue_result")
