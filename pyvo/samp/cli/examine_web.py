# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What ``samp doctor`` says of web pages."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

from ..errors import SAMPError
from ..transport.connection import XMLRPCClient
from .findings import Finding, good, note, problem

__all__ = ["examine_web"]

SOON = 3.0

_BROWSERS = (
    "look for a question from the hub, which may be hidden behind other windows. Let the browser allow the page to "
    "reach this computer (local network, in the page's permissions), and content blockers, too. Safari may let no "
    "https page do so; try another browser."
)


def examine_web(port: int, *, hub_is_there: bool) -> Iterator[Finding]:
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
        with socket.create_connection(("127.0.0.1", port), SOON):
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
    hub = XMLRPCClient(f"http://{shown}:{port}/", timeout=SOON)
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
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)
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
        yield good(f"A hub serves web pages on port {port}. If a page does not connect: {_BROWSERS}")


def _examine_ipv6(port: int) -> Iterator[Finding]:
    """A browser that is told `localhost` may try ::1 first, where somebody else could be."""
    try:
        with socket.create_connection(("::1", port), SOON):
            pass
    except OSError:
        return
    if not _is_hub("::1", port):
        yield problem(
            f"At [::1]:{port}, which browsers may take for localhost, is a program that is not a hub.",
            "End that program: web pages may meet it in place of the hub.",
        )
