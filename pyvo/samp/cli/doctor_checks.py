# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What ``samp doctor`` says of web pages.

What ``samp doctor`` finds.

What ``samp doctor`` examines first: this computer, the environment, and the lockfile.

What ``samp doctor`` asks the hub, and by it the programs that are connected.
"""

from __future__ import annotations

import http.client
import os
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from ..constants import SAMP_STATUS_ERROR
from ..errors import SAMPError, SAMPHubError, SAMPProxyError, SAMPTransportError
from ..integrated_client import SAMPIntegratedClient
from ..lockfile import (
    HINT_DOCTOR,
    HINT_REMOVE_LOCKFILE,
    HINT_START_HUB,
    display_path,
    is_url,
    lockfile_source,
    ping_hub,
    read_lockfile,
)
from ..transport.urls import is_local_host, split_http_url
from ..transport.xmlrpc_client import XMLRPCClient
from .call import call_and_collect
from .client_session import NameCache
from .output import CommandError

__all__ = [
    "Finding",
    "Kind",
    "check_hub",
    "check_other_hubs",
    "check_web",
    "examine_environment",
    "examine_lockfile",
    "examine_loopback",
    "examine_membership",
    "note",
    "ok",
    "problem",
]

class Kind(Enum):
    """How bad it is."""

    GOOD = "ok"
    NOTE = "note"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """Something that was found, and what the user can do about it."""

    kind: Kind
    text: str
    advice: str = ""


def ok(text: str) -> Finding:
    """Find nothing wrong."""
    return Finding(Kind.GOOD, text)


def note(text: str, advice: str = "") -> Finding:
    """Find something that may be meant so, or explain what is missed."""
    return Finding(Kind.NOTE, text, advice)


def problem(text: str, advice: str) -> Finding:
    """Find what has to be mended."""
    return Finding(Kind.PROBLEM, text, advice)


try:
    import pwd
except ImportError:  # Windows
    pwd = None  # type: ignore[assignment]


#: Seconds for what happens within this computer.
LOCAL_TIMEOUT = 3.0


def examine_loopback() -> Iterator[Finding]:
    """Whether programs of this computer can talk to each other at all."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(LOCAL_TIMEOUT)
            with socket.create_connection(server.getsockname(), LOCAL_TIMEOUT):
                server.accept()[0].close()
    except OSError as error:
        yield problem(
            f"A connection to 127.0.0.1 within this computer failed: {error.strerror or error}.",
            "SAMP needs such connections. Let the firewall or security program allow connections to 127.0.0.1; in a "
            "sandbox or container, let it have a loopback interface.",
        )
    else:
        yield ok("Programs on this computer can connect to each other through 127.0.0.1.")


def examine_environment() -> Iterator[Finding]:
    """What steers the programs: SAMP_HUB, the home directory, proxies, a login from elsewhere."""
    setting = os.environ.get("SAMP_HUB", "")
    if setting:
        yield note(
            f"SAMP_HUB is set: {setting}",
            "Programs that were started without it, from a desktop icon for instance, look in ~/.samp instead, and do "
            "not meet those that have it.",
        )
    yield from _examine_home()
    proxy = os.environ.get("http_proxy") or os.environ.get("HTTP_PROXY")
    spared = os.environ.get("no_proxy", "") + os.environ.get("NO_PROXY", "")
    if proxy and "127.0.0.1" not in spared and spared != "*":
        yield note(
            f"Web traffic goes through a proxy ({proxy}), even that to 127.0.0.1.",
            "This package uses no proxy, but other SAMP programs may. Set no_proxy=localhost,127.0.0.1 for them.",
        )
    if os.environ.get("SSH_CONNECTION"):
        yield note(
            "You are logged in from another computer.",
            "The hub and programs here do not see those on the computer you sit at, unless you forward the hub's port.",
        )


def _examine_home() -> Iterator[Finding]:
    home = Path(os.path.expanduser("~"))
    if not home.is_dir():
        yield problem(
            f"The home directory {home} does not exist.", "Set HOME to one that does: the lockfile goes there."
        )
        return
    account = _account_home()
    if account is not None and account != home and not os.environ.get("SAMP_HUB"):
        yield note(
            f"HOME is {home}, but the home directory of your account is {account}.",
            "Java programs such as TOPCAT and Aladin look in the latter. If they are to meet programs that look in "
            "HOME, start them with -Duser.home=$HOME, or set SAMP_HUB for all.",
        )


def _account_home() -> Path | None:
    if pwd is None:
        return None
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # an account that this system does not know, as in some containers
        return None


def examine_lockfile(found: dict[str, str]) -> Iterator[Finding]:
    """
    Whether there is a lockfile, and whether it is as it should be.

    Parameters
    ----------
    found : dict
        Gets what is in the lockfile, if it can be used.
    """
    try:
        source = lockfile_source()
    except SAMPHubError as error:
        yield problem(str(error), "Unset SAMP_HUB, if you do not know what it is for.")
        return
    is_explained = False  # one cause gets one advice
    if not is_url(source):
        for finding in _examine_file(source):
            is_explained = is_explained or finding.kind is Kind.PROBLEM
            yield finding
    try:
        found.update(read_lockfile(source))
    except SAMPHubError as error:
        if is_url(source):
            yield problem(_without_advice(error), "Have it served there, or unset SAMP_HUB and start a hub.")
        elif not os.path.lexists(source):
            yield note(f"There is no lockfile at {display_path(source)}: no hub is running.", HINT_START_HUB)
            yield from _examine_directory(os.path.dirname(source))
        elif not is_explained:
            yield problem(_without_advice(error), f"Remove {display_path(source)}, then start a hub.")
    if found and not is_url(source) and not is_explained:
        yield from _examine_mode(source)


def _without_advice(error: SAMPHubError) -> str:
    """What happened; what to do is told beside it."""
    return str(error).removesuffix(HINT_DOCTOR).removesuffix(HINT_REMOVE_LOCKFILE).rstrip()


def _examine_file(path: str) -> Iterator[Finding]:
    """What keeps the file from being used, whatever is in it."""
    try:
        status = os.lstat(path)
    except OSError:
        return  # that it is not there is told later
    name = display_path(path)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(path)
        try:
            status = os.stat(path)
        except OSError:
            yield problem(
                f"{name} is a symbolic link to {target}, which is not there.", f"Remove {name}, then start a hub."
            )
            return
        yield note(f"{name} is a symbolic link to {target}.", "A hub that starts puts a file in its place.")
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        yield problem(
            f"{name} belongs to another user (uid {status.st_uid}; you are {os.getuid()}).",
            "A program was run with sudo, most likely. Stop its hub, have that user (or root) remove the file, and "
            "start a hub as yourself.",
        )


def _examine_mode(path: str) -> Iterator[Finding]:
    """Whether others can read the secret."""
    if not hasattr(os, "getuid"):
        return
    name = display_path(path)
    try:
        status = os.stat(path)
    except OSError:  # its hub has just stopped
        return
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        yield problem(
            f"{name} is open to others (mode {status.st_mode & 0o777:o}): whoever reads it can act as your programs.",
            f"chmod 600 {name}, and restart the hub, which makes a new secret.",
        )


def _examine_directory(directory: str) -> Iterator[Finding]:
    if not os.path.isdir(directory):
        yield problem(f"The directory {display_path(directory)} is not there.", "Create it, or set SAMP_HUB to another place.")
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield problem(
            f"You cannot write to {display_path(directory)}, so no hub can put its lockfile there.",
            "Fix the permissions, or set SAMP_HUB=std-lockurl:file:///another/place for hub and programs.",
        )


def check_other_hubs() -> Iterator[Finding]:
    """Hubs that run beside the main one, where only those find them who are told to."""
    directory = Path(os.path.expanduser("~"), ".samp-1")
    try:
        paths = sorted(path for path in directory.iterdir() if path.is_file() and path.suffix not in {".lock", ".new"})
    except OSError:
        return
    for path in paths:
        try:
            alive = ping_hub(read_lockfile(path), LOCAL_TIMEOUT)
        except SAMPHubError:
            continue
        if alive:
            yield note(
                f"Another hub runs beside the main one ({display_path(path)}).",
                f"Programs meet there only if they are started with SAMP_HUB=std-lockurl:{path.as_uri()}",
            )


#: Seconds for a hub to answer a ping.
PING_TIME = 5.0
#: Seconds for programs to do so.
PING_TIMEOUT = 6.0

_FIREWALL = "A firewall or security program may be in the way: let it allow connections to 127.0.0.1 on all ports."


def check_hub(params: Mapping[str, str]) -> Iterator[Finding]:
    """
    Whether a hub is there, where the lockfile says; the last finding is good only then.

    Parameters
    ----------
    params : mapping
        What is in the lockfile.
    """
    url = params["samp.hub.xmlrpc.url"]
    host, port, _path = split_http_url(url)
    name = display_path(lockfile_source())
    if not is_local_host(host):
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
            f"{HINT_START_HUB} A hub that starts replaces the lockfile; or remove {name}."
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
        return problem(f"What answers at {url} is not a hub: {fault}", f"Remove the lockfile. {HINT_START_HUB}")
    except SAMPTransportError as error:
        return problem(
            f"A program listens at {url}, but does not answer like a hub: {error}",
            "The program with the hub hangs, or another one is using its port now. End the program with the hub, "
            f"remove the lockfile, and start again. {HINT_START_HUB}",
        )
    finally:
        hub.close()
    return ok(f"The hub at {url} answers, after {1000 * (time.monotonic() - started):.0f} ms.")


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
        response = client.call_and_wait(other, {"samp.mtype": "samp.app.ping", "samp.params": {}}, PING_TIMEOUT)
    except SAMPError as error:
        return problem(f"The hub let us register, but a message to ourselves did not arrive: {error}", _FIREWALL)
    if response.get("samp.status") == SAMP_STATUS_ERROR:
        text = response.get("samp.error", {}).get("samp.errortxt", "")
        return problem(f"The hub let us register, but could not call us back: {text}", _FIREWALL)
    return ok(f"A message went through the hub and was answered within {1000 * (time.monotonic() - started):.0f} ms.")


def _examine_programs(client: SAMPIntegratedClient, second: str, events: SimpleQueue[Any]) -> Iterator[Finding]:
    directory = NameCache(client)
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
        answers = list(call_and_collect(client, events, message, [other for other in present if other in able], PING_TIMEOUT))
    except (SAMPError, CommandError) as error:  # some just left
        yield note(f"The programs could not be pinged: {error}")
        return
    for other, response in answers:
        text = "" if response is None else response.get("samp.error", {}).get("samp.errortxt", "")
        if response is None:
            yield problem(
                f"{directory.client_label(other)} did not answer within {PING_TIMEOUT:g} s.",
                "It hangs, or shows a dialog that waits for you. Other messages to it will not be answered either.",
            )
        elif response.get("samp.status") == SAMP_STATUS_ERROR:
            yield problem(
                f"{directory.client_label(other)} cannot be reached: {text}",
                "It has ended without unregistering, or is about to. Connect it again, or restart it.",
            )
        else:
            yield ok(f"{directory.client_label(other)} answers.")
    if silent:
        yield note("Connected, but cannot be pinged: " + ", ".join(directory.client_label(other) for other in silent) + ".")


LOCAL_TIMEOUT = 3.0

_BROWSERS = (
    "look for a question from the hub, which may be hidden behind other windows. Let the browser allow the page to "
    "reach this computer (local network, in the page's permissions), and content blockers, too. Safari may let no "
    "https page do so; try another browser."
)


def check_web(port: int, *, hub_is_there: bool) -> Iterator[Finding]:
    """
    Whether web pages find a hub.

    Parameters
    ----------
    port : int
        Where they look.
    hub_is_there : bool
        Whether programs do.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), LOCAL_TIMEOUT):
            pass
    except ConnectionRefusedError:
        yield note(
            f"Web pages find no hub: nothing is listening on port {port}.",
            "If you want them to, `samp hub` serves them, unless started with -w. In TOPCAT it is an option of its hub."
            if hub_is_there
            else "",
        )
        return
    except OSError as error:
        yield problem(
            f"Port {port}, where web pages look for the hub, cannot be reached: {error.strerror or error}.",
            f"Let the firewall or security program allow connections to 127.0.0.1, port {port}.",
        )
        return
    if not _is_hub("127.0.0.1", port):
        yield problem(
            f"Port {port}, where web pages look for the hub, is used by a program that is not a hub.",
            "End that program, then start the hub again.",
        )
        return
    if not hub_is_there:
        yield problem(
            f"A hub serves web pages on port {port}, but your lockfile does not lead to a hub.",
            "It may be another user's, its lockfile may have been removed, or be elsewhere. If it is yours, stop it "
            "and start it again.",
        )
    yield from _examine_preflight(port)
    yield from _examine_ipv6(port)


def _is_hub(host: str, port: int) -> bool:
    shown = f"[{host}]" if ":" in host else host
    hub = XMLRPCClient(f"http://{shown}:{port}/", timeout=LOCAL_TIMEOUT)
    try:
        hub.call("samp.webhub.ping")
    except SAMPError:
        return False
    finally:
        hub.close()
    return True


def _examine_preflight(port: int) -> Iterator[Finding]:
    """Ask what a browser asks before it lets a page talk to the hub (R44)."""
    origin = "https://example.org"
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
        "Access-Control-Request-Private-Network": "true",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LOCAL_TIMEOUT)
    try:
        connection.request("OPTIONS", "/", headers=headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        yield problem(f"The hub does not answer what browsers ask first: {error}", "Restart it, or use another hub.")
        return
    finally:
        connection.close()
    if answer.getheader("Access-Control-Allow-Origin") not in {origin, "*"}:
        yield problem("The hub does not tell browsers that pages may use it.", "Use another hub, such as `samp hub`.")
    elif answer.getheader("Access-Control-Allow-Private-Network") != "true":
        yield note(
            "The hub does not tell browsers that pages from elsewhere may reach this computer.",
            "Chrome and its relatives may refuse them. Use another hub, such as `samp hub`.",
        )
    else:
        yield ok(f"A hub serves web pages on port {port}. If a page does not connect: {_BROWSERS}")


def _examine_ipv6(port: int) -> Iterator[Finding]:
    """A browser that is told `localhost` may try ::1 first, where somebody else could be."""
    try:
        with socket.create_connection(("::1", port), LOCAL_TIMEOUT):
            pass
    except OSError:
        return
    if not _is_hub("::1", port):
        yield problem(
            f"At [::1]:{port}, which browsers may take for localhost, is a program that is not a hub.",
            "End that program: web pages may meet it in place of the hub.",
        )
