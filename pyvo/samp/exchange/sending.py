# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Sending an object to one client, to several, or to all that take it.

What the object is, and how it can be written, `products` tells; here a form is chosen for each recipient by what it
subscribes to, each form is written once, and all recipients are asked at once. Each file stays on the shelf for as
long as one of them may want it.

What one client has to work with: its shelf, its list of the others, and what still waits for answers.
"""

from __future__ import annotations

import os
import secrets
import threading
import unicodedata
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlsplit

from ..client.callback_server import local_address
from ..client.handlers import internal_handler
from ..client.lookup import ClientRef, client_name, is_callable, resolve_recipients
from ..errors import SAMPClientError, SAMPError, SAMPTypeError, SAMPValueError, warn
from ..formats.fetching import is_local_host
from ..formats.model import MessageFormat, Sendable
from ..formats.registry import file_or_url_as, to_sendable
from ..formats.temporary_files import write_file
from ..protocol import best_match, check_mtype
from ..protocol.timeouts import hub_timeout, parse_timeout
from ..web_profile.url_permissions import URL_SAFE_CHARS
from .client_list import Clients
from .file_server import FileServer, Lease, PublishedFile, safe_file_name
from .reports import SendReport, SendResult

if TYPE_CHECKING:
    from ..client.messaging import MessagingClient as Host
    from .incoming import Incoming

__all__ = ["ExchangeState", "call_recipients", "send"]

class ExchangeState:
    """
    The state that the exchange of objects needs.

    Parameters
    ----------
    host : SAMPIntegratedClient
        The client; it is referred to weakly, as it owns this.
    """

    def __init__(self, host: Host) -> None:
        self._host = weakref.ref(host)
        self._lock = threading.RLock()
        self._shelf: FileServer | None = None
        self._tags: dict[SendReport, str] = {}
        self._queues: weakref.WeakSet[Incoming] = weakref.WeakSet()
        self.clients = Clients(self._host)
        self.clients.on_gone(self._on_gone)

    @property
    def client(self) -> Host:
        """The client."""
        return cast("Host", self._host())

    @property
    def file_server(self) -> FileServer:
        """Where files lie; a new one after each time the client was disconnected."""
        with self._lock:
            if self._shelf is None or self._shelf.closed:
                client = self.client.client
                self._shelf = FileServer(client.loop, local_address(client.listen_address, client.hub.url))
                # a client that its program forgets is collected, and this with it
                weakref.finalize(self, self._shelf.close).atexit = False
            return self._shelf

    # Answers to come

    def track(self, report: SendReport, tag: str) -> None:
        """Keep a report until all have answered."""
        self.clients.subscribe()  # a recipient that leaves without an answer is noticed, whatever the hub does
        with self._lock:
            self._tags[report] = tag
        report.on_done = partial(self.untrack, report)

    def untrack(self, report: SendReport) -> None:
        """Nothing is to come for a report any more."""
        with self._lock:
            tag = self._tags.pop(report, None)
        host = self._host()
        if tag is not None and host is not None:
            host.unbind_receive_response(tag)

    def _on_gone(self, client_id: str) -> None:
        with self._lock:
            reports = list(self._tags)
        for report in reports:
            report.record(client_id, problem="it has left without an answer")

    # Queues

    def add_queue(self, queue: Incoming) -> None:
        """Remember a queue that is to end with the connection."""
        with self._lock:
            self._queues.add(queue)

    def remove_queue(self, queue: Incoming) -> None:
        """Forget a queue."""
        with self._lock:
            self._queues.discard(queue)

    # Coming and going

    def on_connected(self) -> None:
        """The client has joined a hub."""
        self.clients.resubscribe()

    def on_disconnected(self, *, for_good: bool) -> None:
        """
        The connection has ended.

        Parameters
        ----------
        for_good : bool
            Whether the program wanted that; otherwise the hub is gone, and another one may come.
        """
        end = SAMPClientError("The client was disconnected") if for_good else None
        self.clients.clear(end=end)
        with self._lock:
            reports, queues, shelf = list(self._tags), list(self._queues), self._shelf
        for report in reports:
            for client_id in report.waiting:
                report.record(client_id, problem="the connection to the hub ended before it answered")
            self.untrack(report)
        if end is None:
            return
        for queue in queues:
            queue.stop(end)
        if shelf is not None:
            shelf.close()


def send(
    bench: ExchangeState,
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
    """
    Send an object; see `Exchange.send`.

    Parameters
    ----------
    bench : Workbench
        What the client has to work with.
    obj : object
        What is sent; or the product that it is.
    to, name, mtype, timeout, table_id, progress, wait
        As there.
    params : dict, optional
        Further parameters of the message.
    """
    host = bench.client
    host.client.require_key()
    seconds = parse_timeout(timeout)
    product = obj if isinstance(obj, Sendable) else _product(obj, mtype)
    forms = _forms(product, mtype)
    title = to_ascii(name if name is not None else product.name)
    identifier = table_id if table_id is not None else secrets.token_hex(8)
    report = SendReport(product.kind, title, _deliveries(host, to, forms), identifier)
    if not report.deliveries:
        wanted = " or ".join(form.mtype for form in forms)
        warn(f"No client is subscribed to {wanted}: nobody was sent it")
        return report
    by_mtype = {form.mtype: form for form in forms}
    used = {each.mtype: by_mtype[each.mtype] for each in report.deliveries if each.mtype}
    def place_of(form: MessageFormat) -> _SendLocation:
        recipients = [each.id for each in report.deliveries if each.mtype == form.mtype]
        return _SendLocation.of(bench, product, form, title, identifier, progress, recipients)

    places = _write_formats(report, used, place_of)
    ds9s = host.get_subscribed_clients("ds9.set")
    for each in report.deliveries:
        if each.mtype:
            each.url, each.lease = places[each.mtype].for_recipient(is_ds9=each.id in ds9s)
    messages = {
        each.id: _message(used[each.mtype], each.url, title, identifier, params)
        for each in report.deliveries
        if each.mtype
    }
    call_recipients(bench, report, messages, seconds)
    if wait:
        report.wait(seconds)
        _warn(report, seconds)
    return report


def _product(obj: Any, mtype: str | None) -> Sendable:
    if mtype is None:
        return to_sendable(obj)
    check_mtype(mtype)
    # the user knows better what is in the file
    return file_or_url_as(obj, mtype) if isinstance(obj, str | os.PathLike) else to_sendable(obj)


def _forms(product: Sendable, mtype: str | None) -> list[MessageFormat]:
    if mtype is None:
        return list(product.formats)
    fitting = [form for form in product.formats if form.mtype == mtype]
    if not fitting:
        ways = ", ".join(form.mtype for form in product.formats)
        raise SAMPTypeError(f"A {product.kind} cannot be sent as {mtype}; it can as {ways}")
    return fitting


def _deliveries(host: Host, to: ClientRef | None, forms: list[MessageFormat]) -> Iterable[SendResult]:
    """Choose for each recipient the best form that it takes."""
    if to is None:
        takers: dict[str, list[MessageFormat]] = {}
        for form in forms:
            for client_id in host.get_subscribed_clients(form.mtype):
                takers.setdefault(client_id, []).append(form)
        names = {client_id: client_name(host, client_id) for client_id in takers}
        return [SendResult(each, names[each], _best(fitting, names[each]).mtype) for each, fitting in takers.items()]
    return [_delivery_for(host, client_id, name, forms) for client_id, name in resolve_recipients(host, to).items()]


def _delivery_for(host: Host, client_id: str, name: str, forms: list[MessageFormat]) -> SendResult:
    delivery = SendResult(client_id, name or client_id)
    try:
        takes = host.get_subscriptions(client_id)
    except SAMPError as error:  # it has just left
        delivery.error = str(error)
        return delivery
    fitting = [form for form in forms if best_match(takes, form.mtype) is not None]
    if fitting:
        delivery.mtype = _best(fitting, delivery.name).mtype
    else:
        delivery.error = f"it does not take {' or '.join(form.mtype for form in forms)}"
    return delivery


def _best(fitting: list[MessageFormat], program: str) -> MessageFormat:
    """The form that is best for a program, or else the first."""
    better = (form for form in fitting if form.is_better_for is not None and form.is_better_for(program))
    return next(better, fitting[0])


def _write_formats(report: SendReport, used: dict[str, MessageFormat], place_of: Callable[[MessageFormat], _SendLocation]) -> dict[str, _SendLocation]:
    """
    Have each form written that a recipient is to get.

    One that cannot be written is the problem of those who take no other, and the error of all if there are no others.
    """
    places: dict[str, _SendLocation] = {}
    errors: list[SAMPError] = []
    try:
        for key, form in used.items():
            try:
                places[key] = place_of(form)
            except (SAMPTypeError, SAMPValueError) as error:
                errors.append(error)
                for each in report.deliveries:
                    if each.mtype == key:
                        each.mtype, each.error = "", str(error)
        if errors and not places:
            raise errors[0]
    except BaseException:
        for place in places.values():
            place.discard()
        raise
    return places


class _SendLocation:
    """Where a form of the product can be read."""

    def __init__(self, url: str = "", lot: PublishedFile | None = None, *, elsewhere: bool = False) -> None:
        self._url = url
        self._lot = lot
        self._elsewhere = elsewhere

    @classmethod
    def of(
        cls,
        bench: ExchangeState,
        product: Sendable,
        form: MessageFormat,
        name: str,
        identifier: str,
        progress: bool | None,
        recipients: list[str],
    ) -> _SendLocation:
        key = f"{form.mtype} {identifier}"
        elsewhere = not is_local_host(urlsplit(bench.client.hub.url).hostname or "")
        if form.write is not None:
            path = bench.file_server.create_path(safe_file_name(name, form.suffix))
            # what stands in the file is base64 where it is a VOTable
            expected = product.size * 4 // 3 if form.suffix == ".vot" else product.size
            try:
                write_file(path, form.write, expected, progress)
            except (OSError, SAMPError):
                bench.file_server.remove_path(path)
                raise
            except Exception as error:  # of astropy, or of the library that the object is of
                bench.file_server.remove_path(path)
                raise SAMPTypeError(f"The {product.kind} cannot be written for {form.mtype}: {error}") from error
            except BaseException:
                bench.file_server.remove_path(path)
                raise
            lot = bench.file_server.add(path, name, ours=True, key=key, recipients=recipients)
            return cls(lot=lot, elsewhere=elsewhere)
        if product.path is not None:
            path = product.path
            if not elsewhere:
                if "%" not in path.as_uri():
                    return cls(path.as_uri())
                path = bench.file_server.link_with_plain_name(path)
            ours = path is not product.path
            lot = bench.file_server.add(path, product.path.name, ours=ours, key=key, recipients=recipients)
            return cls(lot=lot, elsewhere=elsewhere)
        return cls(quote(product.url, safe=URL_SAFE_CHARS) if product.url else "")

    def discard(self) -> None:
        """Remove the file that was written for it."""
        if self._lot is not None and self._lot.temporary:
            self._lot.discard()

    def for_recipient(self, *, is_ds9: bool) -> tuple[str, Lease | None]:
        """The URL for one recipient, and the loan that it is part of."""
        if self._lot is None:
            return self._url, None
        # DS9 takes "%20" for part of a file's name; it decodes nothing in an http URL of ours, which has none
        loan = self._lot.create_lease(http=self._elsewhere or (is_ds9 and not self._lot.is_plain))
        return loan.url, loan


def to_ascii(name: str) -> str:
    """The name in ASCII: for the sake of an accent, hubs of Java would refuse the whole message."""
    if name.isascii() and name.isprintable():
        return name
    letters = unicodedata.normalize("NFKD", name)
    kept = "".join(c for c in letters if not unicodedata.combining(c))
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in kept)


def _message(form: MessageFormat, url: str, name: str, identifier: str, params: dict[str, Any] | None) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if form.make_params is not None:
        content = form.make_params(url, name)
    elif url:
        content.update(url=url, name=name)
        if form.id_key:
            content[form.id_key] = identifier
    return {"samp.mtype": form.mtype, "samp.params": {**content, **form.params, **(params or {})}}


# Asking


def call_recipients(bench: ExchangeState, report: SendReport, messages: dict[str, dict[str, Any]], timeout: float) -> None:
    """
    Ask all recipients; their answers come later.

    Parameters
    ----------
    bench : Workbench
        What the client has to work with.
    report : SendReport
        Where the answers are noted.
    messages : dict
        From ids of recipients to messages.
    timeout : float
        Seconds for those who cannot be answered later.
    """
    host = bench.client
    if not messages:
        return
    if not is_callable(host):
        for recipient, message in messages.items():
            host.client.loop.run_in_worker(_call_and_wait, host, report, recipient, message, hub_timeout(timeout))
        return
    tag = f"samp-send-{secrets.token_hex(8)}"

    @internal_handler
    def on_response(_key: str, responder: str, _tag: str, response: dict[str, Any]) -> None:
        report.record(responder, response=response)

    bench.track(report, tag)
    host.bind_receive_response(tag, on_response)
    for recipient, message in messages.items():
        try:
            host.call(recipient, tag, message)
        except SAMPError as error:
            report.record(recipient, problem=str(error))


def _call_and_wait(host: Host, report: SendReport, recipient: str, message: dict[str, Any], timeout: float) -> None:
    try:
        report.record(recipient, response=host.call_and_wait(recipient, message, timeout))
    except SAMPError as error:
        report.record(recipient, problem=str(error))


def _warn(report: SendReport, timeout: float) -> None:
    for each in report.deliveries:
        if each.failure:
            verb = "take" if report.kind == "position" else "load"
            text = f"{each.name} did not {verb} the {report.kind}: {each.failure}"
        elif each.is_open:
            text = f"{each.name} has not answered within {timeout:g} s; what it was sent can still be read"
        else:
            continue
        warn(text)
