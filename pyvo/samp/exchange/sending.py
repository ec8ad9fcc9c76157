# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Send an object to one client, to several clients, or to all clients that are subscribed to one of its MTypes.

`formats.registry` returns the formats of the object. For each recipient the best format among its subscriptions is
chosen. Each format is written once. Then all recipients are called, and a `SendReport` collects their responses. The
files are available until each recipient has replied (`file_server`).

`ExchangeState` holds the state of one client for the exchange of objects.
"""

from __future__ import annotations

import os
import secrets
import threading
import unicodedata
import weakref
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

from ..client.callback_server import local_address
from ..client.handlers import internal_handler
from ..client.lookup import ClientRef, client_name, is_callable, resolve_recipients
from ..client.messaging import MessagingClient
from ..errors import SAMPClientError, SAMPError, SAMPTypeError, SAMPValueError, warn
from ..formats.model import MessageFormat, Sendable
from ..protocol import best_match, check_mtype
from ..protocol.timeouts import hub_timeout, parse_timeout
from ..temporary_files import safe_file_name, write_file
from ..transport.urls import URL_SAFE_CHARS, is_local_host
from .client_list import Clients
from .file_server import FileServer, PublishedFile
from .reports import SendReport, SendResult


class ExchangeState:
    """
    The state of a client for the exchange of objects: files, the list of clients, open reports and open queues.

    The client owns the state. The state refers to the client weakly.
    """

    def __init__(self, client: MessagingClient) -> None:
        self._client = weakref.ref(client)
        self._lock = threading.RLock()
        self._file_server: FileServer | None = None
        self._tags: dict[SendReport, str] = {}
        #: The `Incoming` queues, which end when the client disconnects.
        self.queues: weakref.WeakSet[Any] = weakref.WeakSet()
        self.clients = Clients(self._client)
        self.clients.on_gone(self._on_gone)

    @property
    def client(self) -> MessagingClient:
        """The client."""
        return cast("MessagingClient", self._client())

    @property
    def file_server(self) -> FileServer:
        """The file server; a new one after the client was disconnected."""
        with self._lock:
            if self._file_server is None or self._file_server.closed:
                client = self.client.client
                self._file_server = FileServer(client.loop, local_address(client.listen_address, client.hub.url))
                # close the server also if the program drops the client, so that client and state are collected
                weakref.finalize(self, self._file_server.close).atexit = False
            return self._file_server

    def track(self, report: SendReport, tag: str) -> None:
        """Keep a report until all recipients have replied."""
        # notice recipients that unregister without a reply, even if the hub sends no error response for them
        self.clients.subscribe()
        with self._lock:
            self._tags[report] = tag
        report.on_done = partial(self.untrack, report)

    def untrack(self, report: SendReport) -> None:
        """Drop a report that gets no more responses."""
        with self._lock:
            tag = self._tags.pop(report, None)
        client = self._client()
        if tag is not None and client is not None:
            client.unbind_receive_response(tag)

    def _on_gone(self, client_id: str) -> None:
        with self._lock:
            reports = list(self._tags)
        for report in reports:
            report.record(client_id, error="it unregistered before it responded")

    def on_disconnected(self, *, for_good: bool) -> None:
        """Finish all reports. If the program disconnected (`for_good`), also end the queues and remove the files."""
        end = SAMPClientError("The client was disconnected") if for_good else None
        self.clients.clear(end=end)
        with self._lock:
            reports, server = list(self._tags), self._file_server
        for report in reports:
            for client_id in report.waiting:
                report.record(client_id, error="the connection to the hub ended before it responded")
            self.untrack(report)
        if end is None:
            return
        for queue in list(self.queues):
            queue.stop(end)
        if server is not None:
            server.close()


def send(
    state: ExchangeState,
    obj: Any,
    to: ClientRef | None,
    *,
    name: str | None = None,
    mtype: str | None = None,
    timeout: str | float = 60.0,
    table_id: str | None = None,
    progress: bool | None = None,
    wait: bool = True,
    params: dict[str, Any] | None = None,
) -> SendReport:
    """Send an object or a `Sendable`; see `ExchangeMixin.send`."""
    client = state.client
    client.client.require_key()
    seconds = parse_timeout(timeout)
    sendable = obj if isinstance(obj, Sendable) else _to_sendable(obj, mtype)
    formats = {each.mtype: each for each in _usable_formats(sendable, mtype)}
    title = to_ascii(name if name is not None else sendable.name)
    identifier = table_id if table_id is not None else secrets.token_hex(8)
    report = SendReport(sendable.kind, title, _results(client, to, list(formats.values())), identifier)
    if not report.deliveries:
        warn(f"No client is subscribed to {' or '.join(formats)}, so nothing was sent")
        return report
    locations = _write_formats(state, sendable, report, formats, progress)
    is_remote = _is_remote(client)
    ds9s = client.get_subscribed_clients("ds9.set")
    messages = {}
    for each in report.deliveries:
        if each.mtype:
            location = locations[each.mtype]
            if isinstance(location, PublishedFile):
                # DS9 does not decode "%20" in a file URL; the http URLs of the file server contain no escapes
                each.lease = location.create_lease(http=is_remote or (each.id in ds9s and not location.has_plain_url))
                each.url = each.lease.url
            else:
                each.url = location
            messages[each.id] = _message(formats[each.mtype], each.url, title, identifier, params)
    call_recipients(state, report, messages, seconds)
    if wait:
        report.wait(seconds)
        _warn(report, seconds)
    return report


def _to_sendable(obj: Any, mtype: str | None) -> Sendable:
    # imported here because `client.clients` and `client.on` load this module, but need no astropy.table or astropy.io
    from ..formats.files import file_or_url_as  # noqa: PLC0415
    from ..formats.registry import to_sendable  # noqa: PLC0415

    if mtype is None:
        return to_sendable(obj)
    check_mtype(mtype)
    # with an explicit MType, a file is sent without detecting its format
    return file_or_url_as(obj, mtype) if isinstance(obj, str | os.PathLike) else to_sendable(obj)


def _usable_formats(sendable: Sendable, mtype: str | None) -> list[MessageFormat]:
    if mtype is None:
        return list(sendable.formats)
    matching = [each for each in sendable.formats if each.mtype == mtype]
    if not matching:
        known = ", ".join(each.mtype for each in sendable.formats)
        raise SAMPTypeError(f"The {sendable.kind} cannot be sent as {mtype}. Its MTypes are: {known}")
    return matching


def _results(client: MessagingClient, to: ClientRef | None, formats: list[MessageFormat]) -> Iterable[SendResult]:
    """Return a result for each recipient, with the MType of the best format for it."""
    if to is not None:
        recipients = resolve_recipients(client, to)
        return [_result_for(client, client_id, name, formats) for client_id, name in recipients.items()]
    matching: dict[str, list[MessageFormat]] = {}
    for each in formats:
        for client_id in client.get_subscribed_clients(each.mtype):
            matching.setdefault(client_id, []).append(each)
    names = {client_id: client_name(client, client_id) for client_id in matching}
    return [SendResult(each, names[each], _best(found, names[each]).mtype) for each, found in matching.items()]


def _result_for(client: MessagingClient, client_id: str, name: str, formats: list[MessageFormat]) -> SendResult:
    result = SendResult(client_id, name or client_id)
    try:
        subscriptions = client.get_subscriptions(client_id)
    except SAMPError as error:  # the client has just unregistered
        result.error = str(error)
        return result
    matching = [each for each in formats if best_match(subscriptions, each.mtype) is not None]
    if matching:
        result.mtype = _best(matching, result.name).mtype
    else:
        result.error = f"it is not subscribed to {' or '.join(each.mtype for each in formats)}"
    return result


def _best(matching: list[MessageFormat], program: str) -> MessageFormat:
    """Return the format that is best for a program; if none is, the first."""
    better = (each for each in matching if each.is_better_for is not None and each.is_better_for(program))
    return next(better, matching[0])


def _is_remote(client: MessagingClient) -> bool:
    """Return whether the hub is on another machine, so that recipients may be there as well."""
    return client.hub.is_relayed or not is_local_host(urlsplit(client.hub.url).hostname or "")


def _write_formats(
    state: ExchangeState,
    sendable: Sendable,
    report: SendReport,
    formats: dict[str, MessageFormat],
    progress: bool | None,
) -> dict[str, PublishedFile | str]:
    """
    Write each format that was chosen for a recipient, and return the files (or URLs) by MType.

    If a format cannot be written, the error is recorded for the recipients of this format. If no format can be written,
    the error is raised.
    """
    written: dict[str, PublishedFile | str] = {}
    errors: list[SAMPError] = []
    try:
        for mtype in dict.fromkeys(each.mtype for each in report.deliveries if each.mtype):
            results = [each for each in report.deliveries if each.mtype == mtype]
            recipients = [each.id for each in results]
            try:
                written[mtype] = _write_format(state, sendable, formats[mtype], report, recipients, progress)
            except (SAMPTypeError, SAMPValueError) as error:
                errors.append(error)
                for each in results:
                    each.mtype, each.error = "", str(error)
        if errors and not written:
            raise errors[0]
    except BaseException:
        for file in written.values():
            if isinstance(file, PublishedFile) and file.temporary:
                file.discard()
        raise
    return written


def _write_format(
    state: ExchangeState,
    sendable: Sendable,
    chosen: MessageFormat,
    report: SendReport,
    recipients: list[str],
    progress: bool | None,
) -> PublishedFile | str:
    """Write one format, and return the published file, or a URL that all recipients can read."""
    if chosen.write is None and sendable.path is None:
        return quote(sendable.url, safe=URL_SAFE_CHARS) if sendable.url else ""
    server, key = state.file_server, f"{chosen.mtype} {report.id}"
    if chosen.write is not None:
        path = server.create_path(safe_file_name(report.name, chosen.suffix))
        # a VOTable contains the rows in base64
        expected = sendable.size * 4 // 3 if chosen.suffix == ".vot" else sendable.size
        try:
            write_file(path, chosen.write, expected, progress)
        except BaseException as error:
            server.remove_path(path)
            if isinstance(error, OSError | SAMPError) or not isinstance(error, Exception):
                raise
            # an error of astropy or of the object's own library
            raise SAMPTypeError(f"The {sendable.kind} cannot be written for {chosen.mtype}: {error}") from error
        return _publish(state, path, report.name, temporary=True, key=key, recipients=recipients)
    path = original = cast("Path", sendable.path)
    if not _is_remote(state.client):
        if "%" not in path.as_uri():
            return path.as_uri()
        path = server.link_with_plain_name(path)
    return _publish(state, path, original.name, temporary=path is not original, key=key, recipients=recipients)


def _publish(state: ExchangeState, path: Path, name: str, *, temporary: bool, **options: Any) -> PublishedFile:
    """
    Publish a file for recipients.

    They read it from this machine, or a copy on the hub's machine if the connection to the hub makes such copies.
    """
    server = state.file_server
    try:
        remote = state.client.hub.upload(path, safe_file_name(name, path.suffix))
    except BaseException:
        if temporary:
            server.remove_path(path)
        raise
    return server.add(path, name, temporary=temporary, remote=remote, **options)


def to_ascii(name: str) -> str:
    """Return the name in ASCII, because hubs written in Java reject the whole message if it contains an accent."""
    if name.isascii() and name.isprintable():
        return name
    letters = unicodedata.normalize("NFKD", name)
    kept = "".join(c for c in letters if not unicodedata.combining(c))
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in kept)


def _message(
    chosen: MessageFormat, url: str, name: str, identifier: str, params: dict[str, Any] | None
) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if chosen.make_params is not None:
        content = chosen.make_params(url, name)
    elif url:
        content.update(url=url, name=name)
        if chosen.id_key:
            content[chosen.id_key] = identifier
    return {"samp.mtype": chosen.mtype, "samp.params": {**content, **chosen.params, **(params or {})}}


def call_recipients(
    state: ExchangeState, report: SendReport, messages: dict[str, dict[str, Any]], timeout: float
) -> None:
    """
    Call all recipients. Their responses are added to the report when they arrive.

    ``messages`` maps public ids of recipients to messages. ``timeout`` is in seconds. It applies to each response if
    this client is not callable, because the client then waits for each response.
    """
    client = state.client
    if not messages:
        return
    if not is_callable(client):
        for recipient, message in messages.items():
            client.client.loop.run_in_worker(_call_and_wait, client, report, recipient, message, hub_timeout(timeout))
        return
    tag = f"samp-send-{secrets.token_hex(8)}"

    @internal_handler
    def on_response(_key: str, responder: str, _tag: str, response: dict[str, Any]) -> None:
        report.record(responder, response=response)

    state.track(report, tag)
    client.bind_receive_response(tag, on_response)
    for recipient, message in messages.items():
        try:
            client.call(recipient, tag, message)
        except SAMPError as error:
            report.record(recipient, error=str(error))


def _call_and_wait(
    client: MessagingClient, report: SendReport, recipient: str, message: dict[str, Any], timeout: float
) -> None:
    try:
        report.record(recipient, response=client.call_and_wait(recipient, message, timeout))
    except SAMPError as error:
        report.record(recipient, error=str(error))


def _warn(report: SendReport, timeout: float) -> None:
    verb = "accept" if report.kind == "position" else "load"
    for each in report.deliveries:
        if each.failure:
            warn(f"{each.name} did not {verb} the {report.kind}: {each.failure}")
        elif each.is_open:
            warn(f"{each.name} has not responded within {timeout:g} s; it can still read the file")
