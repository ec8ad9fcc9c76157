# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The pages of a notebook, and the requests to the hub that one of them carries out for the kernel.

Theory of operation
-------------------
A random id identifies a page. A page sends *hello* when it is loaded, and *claims* the requests when its user has
clicked and it has reached the hub. One page is active: the last one whose user has clicked. After a reload, the page
claims without a click.

Any message may be lost with the connection between kernel and page, and a page may disappear without notice.
Nevertheless no request is carried out twice::

    WAITING --sent to the active page--> SENT --"taken"--> TAKEN --"response" or "failed"--> ENDED

A page sends *taken* before it calls the hub. A request that is SENT is sent to the next page as soon as it is certain
that the first page has not taken it and will not take it. If the response to a TAKEN request is lost, the request ends
with an error that says that it was sent. Two rules ensure this:

- The active page responds to an *echo* with *alive* and the numbers of the requests that it has taken. As messages
  arrive in order, it has not received a request that was sent before the echo and is not in this list.
- A page does not carry out a request that is older than `STALE`, for example because it was held up while the
  computer of the page slept. A page that has not responded to an echo for longer than that is regarded as closed.

An echo is sent when a request is not taken, or gets no response, in time. No timeout ends a request until the page
responds to the echo: a page that is offline for a minute delivers the response when it is online again.

This module has no thread and does no I/O: `receive` and `check` are called by one thread of the relay, the other
methods by any thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from ..errors import SAMPError, SAMPTransportError

#: The paths of messages from the page to the kernel, the best one first: see `PageRequests.receive`.
CONTROL, SUBSHELL, BETWEEN_CELLS = PATHS = ("control", "subshell", "between cells")

#: Bytes in one message, and the number of messages that may be on their way.
CHUNK = 1024 * 1024
CREDITS = 4
#: Seconds after which a page no longer carries out a request; the script of the page has the same value.
STALE = 5.0
#: Seconds to wait for the active page's response to an echo; longer than `STALE`.
ECHO_TIMEOUT = 7.0
#: Seconds after which an echo is sent if a request is not taken, and after which one is sent again.
ECHO_DELAY = 3.0
ECHO_INTERVAL = 10.0
#: Seconds for which a request waits for the first page, for the user's click, and for a lost page to return.
HELLO_TIMEOUT = 30.0
CLICK_TIMEOUT = 300.0
RETURN_TIMEOUT = 120.0

_NO_PAGE = (
    "No page of the notebook shows the relay. Make it the last line of a cell of its own, run that cell, and click "
    "Connect. If this cell already shows the relay, this notebook passes messages from its page to the kernel only "
    "between cells: connect in a later cell"
)
_NOT_CONNECTED = "The page of the notebook is not connected to the hub: click Connect in the output of the relay"
_PAGE_GONE = "The page of the notebook is closed or offline. Open or reload it, and click Connect"
_LOST = "The page of the notebook was closed or reloaded. The request had been sent, but its response is lost"
_LATE = "The hub did not respond in time"
_BLOCKED = "The browser does not allow the page of the notebook to use the hub. The output of the relay says what to do"
_NO_HUB = "No SAMP hub responds on the computer of the browser. Start `samp hub` there, or TOPCAT"


class RequestState(Enum):
    """The states of a request; see the head of the module."""

    WAITING = "waiting"
    SENT = "sent"
    TAKEN = "taken"
    ENDED = "ended"


class PageRequest:
    """
    A request, its state and its response.

    Parameters
    ----------
    number : int
        Identifies it in messages. Not a string, because ipykernel keeps all strings under the key ``id`` of messages.
    content, buffers
        The message to the page.
    timeout : float
        Seconds from "taken" to the response, or to the next part of it; 0: no limit.
    repeatable : bool
        Whether it may be carried out twice.
    """

    def __init__(
        self,
        number: int,
        content: Mapping[str, Any],
        buffers: Sequence[bytes],
        timeout: float,
        repeatable: bool,
        now: float,
    ) -> None:
        self.number = number
        self.content = content
        self.buffers = buffers
        self.timeout = timeout
        self.repeatable = repeatable
        self.state = RequestState.WAITING
        #: The page that it was sent to, and the number of echoes that were sent before it.
        self.page = ""
        self.echoes = 0
        #: When its state, or that of its response, has changed.
        self.since = now
        #: Parts of the response that have arrived but have not been read, and the number of all parts so far.
        self.chunks: deque[bytes] = deque()
        self.received = 0
        #: The head of the response, and its body unless that is a stream.
        self.response: dict[str, Any] | None = None
        self.body = b""
        self.error: SAMPError | None = None

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will arrive."""
        return self.state is RequestState.ENDED


class PageRequests:
    """
    The pages and the requests.

    Parameters
    ----------
    send : callable
        Sends a message to all pages of the notebook: ``send(content, buffers)``.
    clock : callable
        Returns the time in seconds.
    """

    def __init__(
        self, send: Callable[[dict[str, Any], Sequence[bytes]], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._send = send
        self._clock = clock
        self.changed = threading.Condition()
        #: The id of the active page; empty without one.
        self.page = ""
        #: The last hello of each page that has not sent bye.
        self.pages: dict[str, dict[str, Any]] = {}
        self._paths: dict[str, set[str]] = {}
        self._requests: dict[int, PageRequest] = {}
        self._numbers = 0
        self._candidate = ""  # a page that takes over when it is certain what the active one has taken
        self._was_connected = False
        self._has_hub = True  # as far as the last request has shown
        self._closed = False
        self._since = clock()  # when a page came or went
        self._echoes = 0
        self._echo_sent: float | None = None  # the first echo without a response
        self._last_echo = 0.0
        self._reported: tuple[object, ...] = ()

    # State for the program and the page

    @property
    def path(self) -> str:
        """The best path by which messages of the active page, or else of any page, have arrived; empty if none has."""
        pages = [self.page] if self.page else list(self._paths)
        known = set().union(*(self._paths.get(page, ()) for page in pages))
        return next((path for path in PATHS if path in known), "")

    @property
    def is_silent(self) -> bool:
        """Whether the active page has not responded to an echo in time."""
        return self._echo_sent is not None and self._clock() >= self._echo_sent + ECHO_TIMEOUT

    @property
    def state(self) -> str:
        """``closed``, ``waiting for the page``, ``permission``, ``consent``, ``open`` or ``lost``."""
        with self.changed:
            if self._closed:
                return "closed"
            absent = "waiting for the page" if self._requests else "lost" if self._was_connected else "closed"
            if not self.page:
                return "permission" if self.pages else absent
            if self.is_silent:
                return absent
            taken = (each for each in self._requests.values() if each.state is RequestState.TAKEN)
            if any(each.content.get("consent") for each in taken):
                return "consent"
            return "open" if self._has_hub else "lost"

    def _report(self) -> None:
        """Send the state to the pages if it has changed."""
        state, page, path = now = (self.state, self.page, self.path)
        if now != self._reported:
            self._reported = now
            self._send({"op": "state", "page": page, "state": state, "path": path, "resume": self._was_connected}, ())
        self.changed.notify_all()

    # Requests, in any thread

    def submit(
        self,
        content: Mapping[str, Any],
        buffers: Sequence[bytes] = (),
        timeout: float = 0.0,
        *,
        repeatable: bool = False,
    ) -> PageRequest:
        """Send a request to the active page, or to the next one."""
        with self.changed:
            self._numbers += 1
            request = PageRequest(self._numbers, content, buffers, timeout, repeatable, self._clock())
            if self._closed:
                self._end(request, SAMPTransportError("The relay is closed"))
                return request
            self._requests[request.number] = request
            self._send_request(request)
            self._report()
            return request

    def wait(self, request: PageRequest) -> bytes | None:
        """
        Wait for the end of a request, or for the next part of a response that is a stream.

        Return that part, or None at the end. Raise the error with which the request has ended. An interruption (^C)
        cancels the request.
        """
        try:
            with self.changed:
                while not (request.chunks or request.is_ended):
                    self.changed.wait()
                if request.chunks:
                    chunk = request.chunks.popleft()
                    request.since = self._clock()
                    if not request.is_ended:
                        self._send({"op": "credit", "id": request.number, "page": request.page}, ())
                    return chunk
        except BaseException:
            self.cancel(request)
            raise
        if request.error is not None:
            raise request.error
        return None

    def wait_for_end(self, request: PageRequest, timeout: float) -> None:
        """Wait for the end of a request, for a limited time; the request continues after that."""
        with self.changed:
            self.changed.wait_for(lambda: request.is_ended, timeout)

    def cancel(self, request: PageRequest) -> None:
        """Cancel a request whose response is no longer needed; the page aborts it."""
        with self.changed:
            if request.is_ended:
                return
            if request.state is not RequestState.WAITING:
                self._send({"op": "cancel", "id": request.number, "page": request.page}, ())
            was_sent = request.state is RequestState.TAKEN
            self._end(request, SAMPTransportError("The request was cancelled", sent=was_sent))
            self._report()

    def close(self) -> None:
        """End all requests."""
        with self.changed:
            self._closed = True
            for request in list(self._requests.values()):
                self.cancel(request)
            self._report()

    def _send_request(self, request: PageRequest) -> None:
        if not self.page or self._candidate:
            return
        request.state, request.page, request.since = RequestState.SENT, self.page, self._clock()
        request.echoes = self._echoes
        head = {"id": request.number, "page": self.page, "at": int(request.since * 1000)}
        self._send({**request.content, **head}, request.buffers)

    def _end(self, request: PageRequest, error: SAMPError | None = None) -> None:
        request.state, request.error = RequestState.ENDED, error
        self._requests.pop(request.number, None)
        self.changed.notify_all()

    # Messages of pages

    def receive(self, content: Mapping[str, Any], buffers: Sequence[Any] = (), path: str = CONTROL) -> None:
        """
        Process a message of a page.

        ``path`` is how the message arrived: CONTROL or SUBSHELL if it was received in another thread than the one that
        runs cells, which proves that messages also arrive while a cell runs; otherwise BETWEEN_CELLS.
        """
        page = content.get("page")
        handle = _HANDLERS.get(str(content.get("op")))
        if handle is None or not isinstance(page, str) or not page:
            return
        with self.changed:
            self._paths.setdefault(page, set()).add(path)
            handle(self, page, content, buffers)
            self._report()

    def _on_hello(self, page: str, content: Mapping[str, Any], _buffers: object) -> None:
        known = self.pages.get(page, {})
        if int(content.get("serial", 0)) <= known.get("serial", 0):  # it arrived by two paths
            return
        if not known:
            self._since = self._clock()
        self.pages[page] = dict(content)
        claim = content.get("claim")
        if page == self.page:
            self._has_hub = content.get("hub") != "none"
        elif claim and not self.page:
            self._activate(page)
        elif claim:
            self._candidate = page
            if any(each.state is RequestState.SENT for each in self._requests.values()) or claim != "click":
                self._send_echo()
            else:
                self._activate(page)
        if not known:  # a new page does not know the state
            self._reported = ()

    def _on_bye(self, page: str, _content: object, _buffers: object) -> None:
        if page in self.pages:
            self.pages.pop(page)
            self._paths.pop(page, None)
            if page == self._candidate:
                self._candidate = ""
            self._on_gone(page)

    def _on_alive(self, page: str, content: Mapping[str, Any], _buffers: object) -> None:
        """Find the requests that were lost; messages by another path than the best one may arrive late."""
        is_current = self._echo_sent is not None and content.get("echo") == self._echoes
        if page != self.page or not content.get("is_best") or not is_current:
            return
        self._echo_sent = None
        taken = set(content.get("ids", ()))
        lost = [each for each in self._sent_to(page) if each.echoes < self._echoes and each.number not in taken]
        if self._candidate and self.pages[self._candidate].get("claim") == "click":
            self._activate(self._candidate, lost)
            return
        self._candidate, self._reported = "", ()  # notifies a page that wanted to become active
        self._send_again(lost)

    def _on_taken(self, page: str, content: Mapping[str, Any], _buffers: object) -> None:
        request = self._request(page, content)
        if request is not None and request.state is RequestState.SENT:
            request.state, request.since = RequestState.TAKEN, self._clock()

    def _on_response(self, page: str, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        request = self._request(page, content)
        if request is None or request.response is not None:
            return
        request.response, request.since = dict(content), self._clock()
        self._has_hub = True
        if not content.get("is_stream"):
            request.body = bytes(buffers[0]) if buffers else b""
            self._end(request)

    def _on_chunk(self, page: str, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        request = self._request(page, content)
        if request is None or content.get("number") != request.received:  # or it arrived by two paths
            return
        request.received, request.since = request.received + 1, self._clock()
        request.chunks.append(bytes(buffers[0]))

    def _on_end(self, page: str, content: Mapping[str, Any], _buffers: object) -> None:
        request = self._request(page, content)
        if request is not None:
            complete = content.get("number") == request.received
            self._end(request, None if complete else SAMPTransportError("A part of the file is missing", sent=True))

    def _on_failed(self, page: str, content: Mapping[str, Any], _buffers: object) -> None:
        request = self._request(page, content)
        if request is None:
            return
        reason = content.get("reason")
        if reason == "stale":  # the page has not carried it out
            request.state = RequestState.WAITING
            self._send_request(request)
            return
        if reason in {"no hub", "blocked"}:
            self._has_hub = False
            error = SAMPTransportError(_NO_HUB if reason == "no hub" else _BLOCKED, refused=True)
        else:
            error = SAMPTransportError(f"The request failed in the browser: {content.get('text')}", sent=True)
        self._end(request, error)

    def _request(self, page: str, content: Mapping[str, Any]) -> PageRequest | None:
        """Return the request that a message of the page is about, unless it has ended or was sent to another page."""
        request = self._requests.get(content.get("id", 0))
        return request if request is not None and request.page == page else None

    # Opening and closing of pages

    def _sent_to(self, page: str) -> Iterator[PageRequest]:
        return (each for each in list(self._requests.values()) if each.page == page)

    def _activate(self, page: str, lost: Sequence[PageRequest] = ()) -> None:
        """Make a page the active one, and send it the requests that wait or were ``lost`` at the previous page."""
        self.page, self._candidate = page, ""
        self._was_connected = self._has_hub = True
        self._echo_sent, self._since = None, self._clock()
        self._send_again(lost)

    def _send_again(self, lost: Sequence[PageRequest]) -> None:
        """Send the active page the requests that wait, and those that were lost."""
        for request in lost:
            self._lose(request)
        for request in list(self._requests.values()):
            if request.state is RequestState.WAITING:
                self._send_request(request)

    def _lose(self, request: PageRequest) -> None:
        """Note that the page that a request was sent to has not received it, or that its response is lost."""
        if request.state is RequestState.SENT or (request.repeatable and not request.received):
            request.state, request.page, request.response = RequestState.WAITING, "", None
        else:
            self._end(request, SAMPTransportError(_LOST, sent=True))

    def _on_gone(self, page: str) -> None:
        """Note that a page does not exist any more."""
        for request in self._sent_to(page):
            self._lose(request)
        if page == self.page:
            self.page, self._echo_sent, self._since = "", None, self._clock()
            if self._candidate:
                self._activate(self._candidate)

    def _send_echo(self) -> None:
        self._echoes += 1
        self._last_echo = self._clock()
        if self._echo_sent is None:
            self._echo_sent = self._last_echo
        self._send({"op": "echo", "page": self.page, "echo": self._echoes}, ())

    # Time

    def check(self) -> float | None:
        """End the requests that have timed out; return the seconds until the next call, or None if no request waits."""
        with self.changed:
            now = self._clock()
            for request in list(self._requests.values()):
                self._check_request(request, now)
            if self.page and self._echo_sent is not None and now >= self._echo_sent + ECHO_TIMEOUT:
                if self._candidate or now >= self._echo_sent + RETURN_TIMEOUT:
                    gone = self.page
                    self.pages.pop(gone, None)
                    self._on_gone(gone)
                elif now >= self._last_echo + ECHO_INTERVAL:
                    self._send_echo()
            self._report()
            first = min(self._times(now), default=float("inf"))
            return None if first == float("inf") else max(0.0, first - now)

    def _check_request(self, request: PageRequest, now: float) -> None:
        if request.state is RequestState.WAITING:
            if not self.page and now >= self._give_up_at(request):
                self._end(request, SAMPTransportError(self._absence_text(), refused=True))
        elif request.page != self.page or self.path == BETWEEN_CELLS:  # an echo proves nothing
            if now >= self._last_time(request):
                self._lose(request)
        elif self._echo_sent is not None:
            return
        elif request.state is RequestState.SENT and now >= request.since + ECHO_DELAY:
            self._send_echo()
        elif request.state is RequestState.TAKEN and request.timeout > 0 and now >= request.since + request.timeout:
            if self._last_echo >= request.since + request.timeout:  # the page has responded since then: the hub has not
                self.cancel(request)
                request.error = SAMPTransportError(_LATE, sent=True)
            else:
                self._send_echo()

    def _last_time(self, request: PageRequest) -> float:
        """Return the time at which a request fails if the page does not respond until then."""
        if request.timeout > 0:
            return max(request.since + request.timeout, self._since) + RETURN_TIMEOUT
        return float("inf") if request.page == self.page else self._since + RETURN_TIMEOUT

    def _give_up_at(self, request: PageRequest) -> float:
        limit = CLICK_TIMEOUT if self.pages else RETURN_TIMEOUT if self._was_connected else HELLO_TIMEOUT
        return max(request.since, self._since) + limit

    def _absence_text(self) -> str:
        if not self.pages:
            return _PAGE_GONE if self._was_connected else _NO_PAGE
        hub = {each.get("hub") for each in self.pages.values()}
        return _BLOCKED if "blocked" in hub else _NO_HUB if "none" in hub else _NOT_CONNECTED

    def _times(self, now: float) -> Iterator[float]:
        """Yield the times at which `check` must be called."""
        for request in self._requests.values():
            if request.state is RequestState.WAITING:
                if not self.page:
                    yield self._give_up_at(request)
            elif request.page != self.page or self.path == BETWEEN_CELLS:
                yield self._last_time(request)
            elif self._echo_sent is None:
                if request.state is RequestState.SENT:
                    yield request.since + ECHO_DELAY
                elif request.timeout > 0:
                    yield request.since + request.timeout
        if self.page and self._echo_sent is not None:
            if now < self._echo_sent + ECHO_TIMEOUT:
                yield self._echo_sent + ECHO_TIMEOUT
            else:
                yield min(self._echo_sent + RETURN_TIMEOUT, self._last_echo + ECHO_INTERVAL)


_HANDLERS: dict[str, Callable[[PageRequests, str, Mapping[str, Any], Sequence[Any]], None]] = {
    "hello": PageRequests._on_hello,
    "bye": PageRequests._on_bye,
    "alive": PageRequests._on_alive,
    "taken": PageRequests._on_taken,
    "response": PageRequests._on_response,
    "chunk": PageRequests._on_chunk,
    "end": PageRequests._on_end,
    "failed": PageRequests._on_failed,
}
