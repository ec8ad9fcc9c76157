# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What ``samp doctor`` asks the hub, and by it the programs that are connected."""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from collections.abc import Iterator, Mapping
from queue import SimpleQueue
from typing import Any

from ..constants import SAMP_STATUS_ERROR
from ..errors import SAMPError, SAMPProxyError, SAMPTransportError
from ..integrated_client import SAMPIntegratedClient
from ..lockfile import WHAT_TO_DO, lockfile_source, shown
from ..transport.connection import XMLRPCClient
from ..transport.http_url import http_address
from .call import ask
from .findings import Finding, good, note, problem
from .people import Directory
from .status import CommandError

__all__ = ["examine_hub", "examine_membership"]

#: Seconds for a hub to answer a ping.
PING_TIME = 5.0
#: Seconds for programs to do so.
PATIENCE = 6.0

_FIREWALL = "A firewall or security program may be in the way: let it allow connections to 127.0.0.1 on all ports."


def examine_hub(params: Mapping[str, str]) -> Iterator[Finding]:
    """
    Whether a hub is there, where the lockfile says; the last finding is good only then.

    Parameters
    ----------
    params : mapping
        What is in the lockfile.
    """
    url = params["samp.hub.xmlrpc.url"]
    host, port, _path = http_address(url)
    name = shown(lockfile_source())
    if not _is_this_computer(host):
        yield note(
            f"The lockfile names a hub by the host name or address {host}.",
            "If that is this computer, it must know itself by this name; if it is another one, its hub must listen on "
            "the network.",
        )
    try:
        with socket.create_connection((host, port), PING_TIME):
            pass
    except (socket.gaierror, UnicodeError) as error:  # what is no host name at all cannot even be asked for
        yield problem(
            f"The host {host}, where {name} says that the hub is, is not known: {getattr(error, 'strerror', error)}.",
            f"The lockfile is from another computer or another network, most likely. Remove {name}, then start a hub. "
            "If it is this computer's name, add it to /etc/hosts.",
        )
        return
    except ConnectionRefusedError:
        yield problem(
            f"The hub that {name} names, at {url}, is gone: nothing is listening there. It ended without tidying up.",
            f"{WHAT_TO_DO} A hub that starts replaces the lockfile; or remove {name}."
            + (" In a container the hub of the host is not at 127.0.0.1." if os.path.exists("/.dockerenv") else ""),
        )
        return
    except TimeoutError:
        yield problem(f"The hub at {url} did not accept a connection within {PING_TIME:g} s.", _FIREWALL)
        return
    except OSError as error:
        yield problem(f"The hub at {url} cannot be reached: {error.strerror or error}.", _FIREWALL)
        return
    yield _ping(url)


def _ping(url: str) -> Finding:
    hub = XMLRPCClient(url, timeout=PING_TIME)
    started = time.monotonic()
    try:
        hub.call("samp.hub.ping")
    except SAMPProxyError as fault:
        return problem(f"What answers at {url} is not a hub: {fault}", f"Remove the lockfile. {WHAT_TO_DO}")
    except SAMPTransportError as error:
        return problem(
            f"A program listens at {url}, but does not answer like a hub: {error}",
            "The program with the hub hangs, or another one is using its port now. End the program with the hub, "
            f"remove the lockfile, and start again. {WHAT_TO_DO}",
        )
    finally:
        hub.close()
    return good(f"The hub at {url} answers, after {1000 * (time.monotonic() - started):.0f} ms.")


def _is_this_computer(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def examine_membership(params: Mapping[str, str]) -> Iterator[Finding]:
    """
    Whether one can register, be reached by the hub, and reach the others.

    Parameters
    ----------
    params : mapping
        What is in the lockfile.
    """
    asking = SAMPIntegratedClient("samp doctor", "Checks whether everything works")
    asked = SAMPIntegratedClient("samp doctor (second)", "Is called by the first")
    events: SimpleQueue[Any] = SimpleQueue()
    try:
        try:
            asking.connect(hub_params=params, on_state=events.put)
            asked.connect(hub_params=params)
        except SAMPError as error:
            yield problem(
                f"The hub does not let us register: {error}",
                "The lockfile may be old, or a copy. End the program with the hub, and start a hub again.",
            )
            return
        yield _call(asking, str(asked.get_public_id()))
        yield from _examine_programs(asking, str(asked.get_public_id()), events)
    finally:
        asked.disconnect()
        asking.disconnect()


def _call(client: SAMPIntegratedClient, other: str) -> Finding:
    started = time.monotonic()
    try:
        response = client.call_and_wait(other, {"samp.mtype": "samp.app.ping", "samp.params": {}}, PATIENCE)
    except SAMPError as error:
        return problem(f"The hub let us register, but a message to ourselves did not arrive: {error}", _FIREWALL)
    if response.get("samp.status") == SAMP_STATUS_ERROR:
        text = response.get("samp.error", {}).get("samp.errortxt", "")
        return problem(f"The hub let us register, but could not call us back: {text}", _FIREWALL)
    return good(f"A message went through the hub and was answered within {1000 * (time.monotonic() - started):.0f} ms.")


def _examine_programs(client: SAMPIntegratedClient, second: str, events: SimpleQueue[Any]) -> Iterator[Finding]:
    directory = Directory(client)
    hub_id = client.client.registration.get("samp.hub-id")
    present = [other for other in client.get_registered_clients() if other not in {hub_id, second}]
    if not present:
        yield note(
            "No other program is connected to the hub.",
            "Programs connect when they start, or from a menu, SAMP or Interop.",
        )
        return
    able = client.get_subscribed_clients("samp.app.ping")
    silent = [other for other in present if other not in able]
    message: dict[str, Any] = {"samp.mtype": "samp.app.ping", "samp.params": {}}
    try:
        answers = list(ask(client, events, message, [other for other in present if other in able], PATIENCE))
    except (SAMPError, CommandError) as error:  # some just left
        yield note(f"The programs could not be pinged: {error}")
        return
    for other, response in answers:
        text = "" if response is None else response.get("samp.error", {}).get("samp.errortxt", "")
        if response is None:
            yield problem(
                f"{directory.title(other)} did not answer within {PATIENCE:g} s.",
                "It hangs, or shows a dialog that waits for you. Other messages to it will not be answered either.",
            )
        elif response.get("samp.status") == SAMP_STATUS_ERROR:
            yield problem(
                f"{directory.title(other)} cannot be reached: {text}",
                "It has ended without unregistering, or is about to. Connect it again, or restart it.",
            )
        else:
            yield good(f"{directory.title(other)} answers.")
    if silent:
        yield note("Connected, but cannot be pinged: " + ", ".join(directory.title(other) for other in silent) + ".")
