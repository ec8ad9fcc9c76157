# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``samp doctor`` finds out why programs do not find each other, and gives advice.

It checks this computer, the environment, the lockfile, the hub, its clients, and the Web Profile. Each check yields
findings.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import socket
import stat
import textwrap
import time
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

try:
    import pwd
except ImportError:  # Windows
    pwd = None  # type: ignore[assignment]

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
from ..transport.urls import is_local_host, make_http_url, split_http_url
from ..transport.xmlrpc_client import XMLRPCClient
from .arguments import Command, port
from .call import call_and_collect
from .client_session import PING, NameCache
from .output import (
    CommandError,
    Status,
    Style,
    add_colour_option,
    add_json_option,
    help_epilog,
    print_json,
    sanitize,
)


class Kind(Enum):
    """The severity of a finding."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """The result of a check, and advice for the user."""

    kind: Kind
    text: str
    advice: str = ""


def ok(text: str) -> Finding:
    """Report that something works."""
    return Finding(Kind.OK, text)


def note(text: str, advice: str = "") -> Finding:
    """Report something that may be intended, or that may explain unexpected behaviour."""
    return Finding(Kind.NOTE, text, advice)


def problem(text: str, advice: str) -> Finding:
    """Report something that the user has to fix."""
    return Finding(Kind.PROBLEM, text, advice)


#: Seconds for connections within this computer.
LOCAL_TIMEOUT = 3.0


def check_loopback() -> Iterator[Finding]:
    """Check that programs of this computer can connect to each other."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(LOCAL_TIMEOUT)
            with socket.create_connection(server.getsockname(), LOCAL_TIMEOUT):
                server.accept()[0].close()
    except OSError as error:
        yield problem(
            f"A connection to 127.0.0.1 within this computer failed: {error.strerror or error}.",
            "SAMP needs such connections. Allow connections to 127.0.0.1 in your firewall or security program; in a "
            "sandbox or container, enable the loopback interface.",
        )
    else:
        yield ok("Programs on this computer can connect to each other through 127.0.0.1.")


def check_environment() -> Iterator[Finding]:
    """Check SAMP_HUB, the home directory and proxies, and whether the user is logged in from another computer."""
    setting = os.environ.get("SAMP_HUB", "")
    if setting:
        yield note(
            f"SAMP_HUB is set: {setting}",
            "Programs that were started without it, for example from a desktop icon, look in ~/.samp instead, and "
            "connect to another hub.",
        )
    yield from _check_home()
    proxy = os.environ.get("http_proxy") or os.environ.get("HTTP_PROXY")
    exempt = os.environ.get("no_proxy", "") + os.environ.get("NO_PROXY", "")
    if proxy and "127.0.0.1" not in exempt and exempt != "*":
        yield note(
            f"HTTP requests go through a proxy ({proxy}), even those to 127.0.0.1.",
            "This package does not use it, but other SAMP programs may. Set no_proxy=localhost,127.0.0.1 for them.",
        )
    if os.environ.get("SSH_CONNECTION"):
        yield note(
            "You are logged in from another computer.",
            "Programs here do not see the hub and programs on the computer in front of you. To join the hubs, run "
            "`samp bridge USER@HOST` there, with the name of this computer.",
        )
    yield from _check_notebook()


def _check_notebook() -> Iterator[Finding]:
    if os.environ.get("JUPYTERHUB_SERVICE_PREFIX") or os.environ.get("JUPYTERHUB_USER"):
        where = "This computer is the server of a JupyterHub. SAMP programs run on the computer of your browser"
    elif os.environ.get("JPY_PARENT_PID") or os.environ.get("JPY_SESSION_NAME"):
        where = "This is a Jupyter server or kernel. If your browser is on another computer, SAMP programs run there"
    else:
        return
    yield note(
        f"{where}, and a hub here does not see them.",
        "In a notebook, connect through its page: relay = pyvo.samp.jupyter.HubRelay(), and then "
        "client.connect(web=relay). It needs pyvo-samp[jupyter]. Start `samp hub` on the computer of your browser.",
    )


def _check_home() -> Iterator[Finding]:
    home = Path(os.path.expanduser("~"))
    if not home.is_dir():
        yield problem(
            f"The home directory {home} does not exist.", "Set HOME to one that exists: the lockfile is put there."
        )
        return
    account = _account_home()
    if account is not None and account != home and not os.environ.get("SAMP_HUB"):
        yield note(
            f"HOME is {home}, but the home directory of your account is {account}.",
            "Java programs such as TOPCAT and Aladin look for the lockfile in the latter. So that all programs use one "
            "hub, start these with -Duser.home=$HOME, or set SAMP_HUB for all programs.",
        )


def _account_home() -> Path | None:
    if pwd is None:
        return None
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # an account without an entry, as in some containers
        return None


def check_lockfile(found: dict[str, str]) -> Iterator[Finding]:
    """Check that there is a valid lockfile with safe permissions; put its content into `found`."""
    try:
        source = lockfile_source()
    except SAMPHubError as error:
        yield problem(str(error), "Unset SAMP_HUB, unless you need it.")
        return
    is_explained = False  # each cause is reported once
    if not is_url(source):
        for finding in _check_file(source):
            is_explained = is_explained or finding.kind is Kind.PROBLEM
            yield finding
    try:
        found.update(read_lockfile(source))
    except SAMPHubError as error:
        if is_url(source):
            yield problem(_without_advice(error), "Put the lockfile there, or unset SAMP_HUB and start a hub.")
        elif not os.path.lexists(source):
            yield note(f"There is no lockfile at {display_path(source)}: no hub is running.", HINT_START_HUB)
            yield from _check_directory(os.path.dirname(source))
        elif not is_explained:
            yield problem(_without_advice(error), f"Remove {display_path(source)}, then start a hub.")
    if found and not is_url(source) and not is_explained:
        yield from _check_mode(source)


def _without_advice(error: SAMPHubError) -> str:
    """Return the text of an error without its advice, because the finding has its own."""
    return str(error).removesuffix(HINT_DOCTOR).removesuffix(HINT_REMOVE_LOCKFILE).rstrip()


def _check_file(path: str) -> Iterator[Finding]:
    """Check that the lockfile belongs to the user and is not a broken link."""
    try:
        status = os.lstat(path)
    except OSError:
        return  # reported when the file is read
    name = display_path(path)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(path)
        try:
            status = os.stat(path)
        except OSError:
            yield problem(
                f"{name} is a symbolic link to {target}, which does not exist.", f"Remove {name}, then start a hub."
            )
            return
        yield note(f"{name} is a symbolic link to {target}.", "The next hub replaces the link with a file.")
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        yield problem(
            f"{name} belongs to another user (uid {status.st_uid}; you are {os.getuid()}).",
            "A program was probably run with sudo. Stop its hub, remove the file as that user (or root), and start a "
            "hub as yourself.",
        )


def _check_mode(path: str) -> Iterator[Finding]:
    """Check that other users cannot read the secret."""
    if not hasattr(os, "getuid"):
        return
    name = display_path(path)
    try:
        status = os.stat(path)
    except OSError:  # its hub has just removed it
        return
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        yield problem(
            f"{name} can be read by other users (mode {status.st_mode & 0o777:o}), so they can connect to your hub.",
            f"Run `chmod 600 {name}`, and restart the hub, which makes a new secret.",
        )


def _check_directory(directory: str) -> Iterator[Finding]:
    if not os.path.isdir(directory):
        yield problem(
            f"The directory {display_path(directory)} does not exist.", "Create it, or set SAMP_HUB to another place."
        )
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield problem(
            f"You cannot write to {display_path(directory)}, so no hub can put its lockfile there.",
            "Fix the permissions, or set SAMP_HUB=std-lockurl:file:///another/place for hub and programs.",
        )


def check_other_hubs() -> Iterator[Finding]:
    """Report hubs that run beside the main one; clients find them only through SAMP_HUB."""
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
                f"Programs connect to it only if they are started with SAMP_HUB=std-lockurl:{path.as_uri()}",
            )


#: Seconds for the hub to respond to a ping.
HUB_TIMEOUT = 5.0
#: Seconds for clients to respond to a ping.
CLIENT_TIMEOUT = 6.0

_PING_MESSAGE: dict[str, Any] = {"samp.mtype": PING, "samp.params": {}}
_FIREWALL = "A firewall or security program may block it. Allow connections to 127.0.0.1 on all ports there."


def check_hub(params: Mapping[str, str]) -> Iterator[Finding]:
    """Check that the hub of the lockfile responds; the last finding is ok only if it does."""
    url = params["samp.hub.xmlrpc.url"]
    host, port, _path = split_http_url(url)
    name = display_path(lockfile_source())
    if not is_local_host(host):
        yield note(
            f"The lockfile names a hub by the host name or address {host}.",
            "If that is this computer, its host name must be resolved here; if it is another computer, its hub must "
            "listen on the network.",
        )
    try:
        with socket.create_connection((host, port), HUB_TIMEOUT):
            pass
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError: not a valid host name
        yield problem(
            f"The host {host}, which {name} names, is not known: {getattr(error, 'strerror', error)}.",
            f"The lockfile is probably from another computer or another network. Remove {name}, then start a hub. "
            "If it is the name of this computer, add it to /etc/hosts.",
        )
        return
    except ConnectionRefusedError:
        yield problem(
            f"The hub that {name} names ({url}) is not running: nothing listens there. It left its lockfile.",
            f"{HINT_START_HUB} The next hub replaces the lockfile. Or remove {name}."
            + (" In a container the hub of the host is not at 127.0.0.1." if os.path.exists("/.dockerenv") else ""),
        )
        return
    except TimeoutError:
        yield problem(f"The hub at {url} did not accept a connection within {HUB_TIMEOUT:g} s.", _FIREWALL)
        return
    except OSError as error:
        yield problem(f"The hub at {url} cannot be reached: {error.strerror or error}.", _FIREWALL)
        return
    yield _ping(url)


def _ping(url: str) -> Finding:
    hub = XMLRPCClient(url, timeout=HUB_TIMEOUT)
    started = time.monotonic()
    try:
        hub.call("samp.hub.ping")
    except SAMPProxyError as fault:
        return problem(f"The program at {url} is not a hub: {fault}", f"Remove the lockfile. {HINT_START_HUB}")
    except SAMPTransportError as error:
        return problem(
            f"A program listens at {url}, but does not respond like a hub: {error}",
            "The program with the hub hangs, or another program is using its port now. End the program with the hub, "
            f"and remove the lockfile. {HINT_START_HUB}",
        )
    finally:
        hub.close()
    return ok(f"The hub at {url} responds, in {1000 * (time.monotonic() - started):.0f} ms.")


def check_clients(params: Mapping[str, str]) -> Iterator[Finding]:
    """Check that clients can register and be called, and that the other clients respond."""
    caller = SAMPIntegratedClient("samp doctor", "Looks for problems")
    recipient = SAMPIntegratedClient("samp doctor (second)", "Is called by the first")
    events: SimpleQueue[Any] = SimpleQueue()
    try:
        try:
            caller.connect(hub_params=params, on_state=events.put)
            recipient.connect(hub_params=params)
        except SAMPError as error:
            yield problem(
                f"The hub rejected the registration: {error}",
                "The lockfile may be old, or a copy. End the program with the hub, and start a hub again.",
            )
            return
        yield _check_call(caller, str(recipient.get_public_id()))
        yield from _check_programs(caller, str(recipient.get_public_id()), events)
    finally:
        recipient.disconnect()
        caller.disconnect()


def _check_call(client: SAMPIntegratedClient, other: str) -> Finding:
    started = time.monotonic()
    try:
        response = client.call_and_wait(other, _PING_MESSAGE, CLIENT_TIMEOUT)
    except SAMPError as error:
        return problem(f"Registration succeeded, but a test message did not arrive: {error}", _FIREWALL)
    if response.get("samp.status") == SAMP_STATUS_ERROR:
        text = response.get("samp.error", {}).get("samp.errortxt", "")
        return problem(f"Registration succeeded, but the hub could not deliver a test message: {text}", _FIREWALL)
    return ok(f"A test message through the hub got a response in {1000 * (time.monotonic() - started):.0f} ms.")


def _check_programs(client: SAMPIntegratedClient, second: str, events: SimpleQueue[Any]) -> Iterator[Finding]:
    names = NameCache(client)
    hub_id = client.client.hub_id
    present = [other for other in client.get_registered_clients() if other not in {hub_id, second}]
    if not present:
        yield note(
            "No other client is connected to the hub.",
            "Programs connect when they start, or through a menu called SAMP or Interop.",
        )
        return
    able = client.get_subscribed_clients(PING)
    silent = [other for other in present if other not in able]
    try:
        pinged = [other for other in present if other in able]
        responses = list(call_and_collect(client, events, _PING_MESSAGE, pinged, CLIENT_TIMEOUT))
    except (SAMPError, CommandError) as error:  # clients have just unregistered
        yield note(f"The programs could not be pinged: {error}")
        return
    for other, response in responses:
        text = "" if response is None else response.get("samp.error", {}).get("samp.errortxt", "")
        if response is None:
            yield problem(
                f"{names.client_label(other)} did not respond within {CLIENT_TIMEOUT:g} s.",
                "It hangs, or shows a dialog that waits for you. It does not respond to other messages either.",
            )
        elif response.get("samp.status") == SAMP_STATUS_ERROR:
            yield problem(
                f"{names.client_label(other)} cannot be reached: {text}",
                "It may have ended without unregistering. Connect it again, or restart it.",
            )
        else:
            yield ok(f"{names.client_label(other)} responds.")
    if silent:
        yield note(f"Connected, but cannot be pinged: {', '.join(map(names.client_label, silent))}.")


_BROWSERS = (
    "look for the hub's question, which may be hidden behind other windows. In the browser, allow the page to reach "
    "this computer (local network, in the page's permissions), and check content blockers. Safari may not allow this "
    "for any https page; try another browser."
)


def check_web(web_port: int, *, hub_is_running: bool) -> Iterator[Finding]:
    """Check that web pages find a hub; `hub_is_running` says whether other programs do."""
    try:
        with socket.create_connection(("127.0.0.1", web_port), LOCAL_TIMEOUT):
            pass
    except ConnectionRefusedError:
        yield note(
            f"Web pages find no hub: no program listens on port {web_port}.",
            "If you need one: `samp hub` serves web pages, unless started with -w. TOPCAT's hub has an option for it."
            if hub_is_running
            else "",
        )
        return
    except OSError as error:
        yield problem(
            f"Port {web_port}, on which web pages look for the hub, cannot be reached: {error.strerror or error}.",
            f"Allow connections to 127.0.0.1, port {web_port}, in your firewall or security program.",
        )
        return
    if not _is_hub("127.0.0.1", web_port):
        yield problem(
            f"Port {web_port}, on which web pages look for the hub, is used by a program that is not a hub.",
            "End that program, then start the hub again.",
        )
        return
    if not hub_is_running:
        yield problem(
            f"A hub serves web pages on port {web_port}, but your lockfile does not lead to a hub.",
            "The hub may belong to another user, or its lockfile may have been removed or be in another place. If it "
            "is your hub, restart it.",
        )
    yield from _check_preflight(web_port)
    yield from _check_ipv6(web_port)


def _is_hub(host: str, port: int) -> bool:
    return ping_hub({"samp.hub.xmlrpc.url": make_http_url(host, port)}, LOCAL_TIMEOUT, operation="samp.webhub.ping")


def _check_preflight(port: int) -> Iterator[Finding]:
    """Send the preflight request that browsers send before a page may connect to the hub (R44)."""
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
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException) as error:
        text = f"The hub does not respond to the preflight request of browsers: {error}"
        yield problem(text, "Restart it, or use another hub.")
        return
    finally:
        connection.close()
    if response.getheader("Access-Control-Allow-Origin") not in {origin, "*"}:
        yield problem("The hub does not allow browsers to connect web pages.", "Use another hub, such as `samp hub`.")
    elif response.getheader("Access-Control-Allow-Private-Network") != "true":
        yield note(
            "The hub does not allow browsers to connect pages from the internet to this computer.",
            "Chrome and browsers built on it may block them. Use another hub, such as `samp hub`.",
        )
    else:
        yield ok(f"A hub serves web pages on port {port}. If a page does not connect: {_BROWSERS}")


def _check_ipv6(port: int) -> Iterator[Finding]:
    """Check that no other program listens at ::1, which browsers may try first for `localhost`."""
    try:
        with socket.create_connection(("::1", port), LOCAL_TIMEOUT):
            pass
    except OSError:
        return
    if not _is_hub("::1", port):
        yield problem(
            f"A program that is not a hub listens at [::1]:{port}, which browsers may use for localhost.",
            "End that program: web pages may connect to it instead of the hub.",
        )


# The command

_EPILOG = help_epilog(
    """\
  samp doctor
  samp doctor --json | jq -r '.[] | select(.kind == "problem") | .advice'
""",
    {
        0: "a hub is running, and there is no problem",
        1: "there is a problem",
        3: "no hub is running; nothing else is wrong",
    },
)

_COLOURS = {Kind.OK: "green", Kind.NOTE: "yellow", Kind.PROBLEM: "red"}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--web-port", type=port, default=21012, help="the port of the Web Profile (default: %(default)s)"
    )
    add_json_option(parser, "all findings as JSON")
    add_colour_option(parser)


def _run(options: argparse.Namespace) -> Status:
    style = Style(options.color)
    found: list[Finding] = []
    params: dict[str, str] = {}
    for finding in _check(params, options.web_port):
        found.append(finding)
        if not options.json:
            _print(finding, style)
    if options.json:
        print_json([{"kind": finding.kind.value, "text": finding.text, "advice": finding.advice} for finding in found])
    problems = sum(finding.kind is Kind.PROBLEM for finding in found)
    if problems:
        text = style("There is a problem." if problems == 1 else f"There are {problems} problems.", "red")
        status = Status.FAILED
    elif not params:
        text, status = "No hub is running; nothing else is wrong.", Status.NO_HUB
    else:
        text, status = style("There is no problem.", "green"), Status.OK
    if not options.json:
        print(f"\n{text}")
    return status


def _check(params: dict[str, str], web_port: int) -> Iterator[Finding]:
    """Run all checks, each of which builds on the earlier ones; `params` gets the content of a usable lockfile."""
    yield from check_loopback()
    yield from check_environment()
    yield from check_lockfile(params)
    hub_is_running = False
    if params:
        for finding in check_hub(params):
            hub_is_running = finding.kind is Kind.OK
            yield finding
    if hub_is_running:
        yield from check_clients(params)
    yield from check_other_hubs()
    yield from check_web(web_port, hub_is_running=hub_is_running)


def _print(finding: Finding, style: Style) -> None:
    mark = style(f"{finding.kind.value:>7}", _COLOURS[finding.kind])
    print(f"{mark}  " + f"\n{'':9}".join(_wrap(sanitize(finding.text, 1000), 9)))
    if finding.advice:
        print(f"{'':9}-> " + f"\n{'':12}".join(_wrap(finding.advice, 12)))
    print(end="", flush=True)


def _wrap(text: str, indentation: int) -> list[str]:
    """Break a text between words to fit the width of the terminal."""
    width = min(110, shutil.get_terminal_size((110, 24)).columns) - indentation
    return textwrap.wrap(text, max(20, width), break_long_words=False, break_on_hyphens=False)


COMMANDS = {"doctor": Command(_add_arguments, _run, _EPILOG)}
