# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The requests of browsers that are no operations of SAMP, and what all answers to browsers have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..hubside.operations import HubOperations
from ..transport.http import HTTPError, Request, Response
from ..transport.rpc import Call
from .access import (
    CLIENT_ACCESS_POLICY,
    CROSS_DOMAIN,
    DATA_ONLY,
    METHODS,
    browser_of,
    cors_headers,
    is_loopback,
    is_own_host,
    preflight_headers,
)

if TYPE_CHECKING:
    from ..broker import Broker
    from ..transport.loop import Loop
    from ..transport.server import Connection
    from ..web_profile import WebProfile

__all__ = ["PROFILE", "TRANSLATOR", "WebRequests"]

PROFILE = "web"
#: What the path of a translator's URL begins with; then comes the page's token (R46).
TRANSLATOR = "/translator/"

_PULL = "samp.webhub.pullCallbacks"
_POLICIES = {"/crossdomain.xml": CROSS_DOMAIN, "/clientaccesspolicy.xml": CLIENT_ACCESS_POLICY}


class WebRequests(HubOperations):
    """
    Answers browsers.

    Parameters
    ----------
    profile : WebProfile
        Whose server this answers for.
    broker : Broker
        What the operations operate.
    loop : Loop
        Whose clock and thread are used.
    own : mapping of str to callable
        The operations that only this profile has, by the last part of their names.
    """

    paths = frozenset({"/", "", "/RPC2"})  # the last for Python's ``ServerProxy`` of a URL without a path

    def __init__(
        self, profile: WebProfile, broker: Broker, loop: Loop, own: Mapping[str, Callable[..., Any]]
    ) -> None:
        super().__init__(PROFILE, "samp.webhub", broker, loop, own)
        self._web = profile

    def headers(self, request: Request | None) -> tuple[tuple[str, str], ...]:
        """What each answer bears (R44)."""
        return () if request is None else cors_headers(request.headers)

    def check(self, request: Request, connection: Connection) -> Response | None:
        """Refuse what does not come from a browser of this machine, or means another server (R45)."""
        if not is_loopback(connection.peer[0]):
            text = "The Web Profile serves this computer alone"
        elif not is_own_host(request.headers.get("host"), self._web.port):
            text = "This server goes by another name"
        elif request.method == "POST" and request.target.partition("?")[0] not in self.paths:
            text = "There is nothing at this path"
        else:
            return None
        # To sampjs anything but 200 is the end of the world: it calls back nobody and polls no more (R48)
        return self.fault(text, request) if request.method == "POST" else self.plain(403, text, request)

    def refuse(self, error: HTTPError) -> Response:
        """Answer what is no request or goes beyond a limit; a POST in the way of `check` (R48)."""
        method, headers = error.head or ("", {})
        request = Request(method, "", headers, b"", keep_alive=False)
        return self.fault(str(error), request) if method == "POST" else self.plain(error.status, str(error), request)

    def run(self, function: Callable[..., Any], call: Call) -> Any:
        """Run an operation; a tab that calls one is not the only one that wants to, so its browser needs room (R49)."""
        if call.method_call.name != _PULL:
            self._web.limit.hurry(browser_of(call.request.headers))
        return super().run(function, call)

    def handle_other(self, request: Request, connection: Connection) -> Response | None:
        """Answer what is no POST: preflights, the policies of Flash and Silverlight, URLs to be translated."""
        self._web.limit.hurry(browser_of(request.headers))
        if request.method == "OPTIONS":
            return Response(200, headers=(*self.headers(request), *preflight_headers(request)))
        if request.method not in {"GET", "HEAD"}:
            return self.plain(405, "This method is not answered here", request, (("Allow", METHODS),))
        path = request.target.partition("?")[0]
        if path in _POLICIES:
            return Response(200, _POLICIES[path].encode("ascii"), "text/xml", self.headers(request))
        if path.startswith(TRANSLATOR):
            return self._translate(request, connection)
        return self.plain(404, "This is a SAMP hub, for web pages that can talk to one", request)

    def _translate(self, request: Request, connection: Connection) -> Response | None:
        """Hand out what is at a URL, if the page that asks may have it (R46)."""
        url = self._web.find_url(request.target)
        if url is None:
            text = "No program has mentioned this URL to the page, or a page had mentioned it first"
            return self.plain(403, text, request)
        if self._web.translator.is_busy:
            return self.plain(503, "Too much is being read at the moment", request, (("Retry-After", "1"),))
        headers = (*self.headers(request), *DATA_ONLY)
        self._web.translator.start(connection.detach(), url, request.method, request.headers, headers)
        return None
