# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The files and URLs that may be read across the bridge.

Peers read those of this machine, and programs of this machine read those of peers.

Theory of operation
-------------------
A value of an outgoing message that consists of the URL of a file, or of a server of this machine, becomes an *offer*. A
placeholder replaces the value in the message, and the offer is sent with the message: a token that cannot be guessed,
and a file name. The path is not sent. The peer replaces the placeholder with a URL of its own bridge, and reads the
offer when a program reads that URL. A URL has the same offer for the lifetime of the link, so that a table that is
identified by its URL can also be identified at the other end.

When a program sends such a URL of the bridge back, the same offer is sent with the message, with the id of the hub that
made it. That end then restores the original URL.

A URL that the peer has mentioned first never becomes an offer, even if a program of this machine repeats it ("cannot
open ``file:///home/me/.ssh/id_rsa``"). The rule and its quota are those for web pages: `UrlPermissions`.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from ..errors import SAMPError, SAMPValueError
from ..protocol import SAMPValue
from ..transport.urls import file_url_to_path
from ..web_profile.url_permissions import UrlPermissions, url_hashes
from .policy import find_local_urls, is_own_host, is_own_url, texts_in

#: Number of the latest offers that a peer may read, and of the latest files of a peer that programs here may read.
MAX_OFFERS = 5000
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,64}")
_PLACEHOLDER = "samp-bridge-offer:"


class RejectedError(SAMPError):
    """A message, response or metadata may not cross the bridge."""


class RemoteFile(NamedTuple):
    """An offer of a hub."""

    hub: str
    offer: str
    name: str


class _Offer(NamedTuple):
    url: str
    file: RemoteFile
    peers: set[str]


class Offers:
    """
    The offers of a bridge. Safe to use from any thread.

    Parameters
    ----------
    hub : str
        Id of the hub at this end.
    make_url : callable
        Makes the URL of the bridge for a token and a file name.
    permissions : UrlPermissions
        The URLs that peers have mentioned first; it outlives the offers.
    allowed : bool
        Whether offers may be made at all.
    """

    def __init__(
        self, hub: str, make_url: Callable[[str, str], str], permissions: UrlPermissions, *, allowed: bool = True
    ) -> None:
        self.hub = hub
        self._make_url = make_url
        self._allowed = allowed
        self._lock = threading.RLock()
        self._permissions = permissions
        self._by_url: OrderedDict[str, _Offer] = OrderedDict()
        self._by_token: dict[str, _Offer] = {}
        # The files of peers: by the token of our URL, that token by the file, and by the path of a copy
        self._files: OrderedDict[str, RemoteFile] = OrderedDict()
        self._tokens: dict[tuple[str, str], str] = {}
        self._copies: dict[str, RemoteFile] = {}

    def add_peer(self, peer: str) -> None:
        """Add a peer, by the id of its hub."""
        self._permissions.add_client(peer, peer)

    def remove_peer(self, peer: str) -> None:
        """Remove a peer: its offers, and the offers to it, can no longer be read."""
        self._permissions.remove_client(peer)
        with self._lock:
            for url, offer in list(self._by_url.items()):
                offer.peers.discard(peer)
                if not offer.peers:
                    self._remove(url)
            for token, file in list(self._files.items()):
                if file.hub == peer:
                    self._forget(token)
            self._copies = {path: file for path, file in self._copies.items() if file.hub != peer}

    # To the peer

    def export(self, value: SAMPValue, peer: str) -> tuple[SAMPValue, dict[str, Any]]:
        """
        Replace the URLs of this machine in a value.

        Returns
        -------
        value, offers
            A copy of the value, and the offers by placeholder.

        Raises
        ------
        RejectedError
            A URL of this machine may not become an offer.
        """
        offers: dict[str, Any] = {}

        def replace(text: str) -> str:
            file = self._file_for(text, peer) if ":" in text else None
            if file is None:
                return text
            placeholder = _PLACEHOLDER + file.offer
            offers[placeholder] = file._asdict()
            return placeholder

        return _map_texts(value, replace), offers

    def lookup(self, token: str, peer: str) -> str | None:
        """Return the URL of an offer, or None if no such offer was made to this peer."""
        with self._lock:
            offer = self._by_token.get(token)
            return offer.url if offer is not None and peer in offer.peers else None

    def _file_for(self, text: str, peer: str) -> RemoteFile | None:
        """Return the file for a text that is a URL of this machine or of this bridge; None for any other text."""
        url = text.strip()
        if not is_own_url(url):
            return None
        key = _with_one_host(url)
        with self._lock:
            file = self._copies.get(file_url_to_path(url) or "") or self._files.get(self._own_token(key))
            if file is not None:
                return file
            if not self._allowed:
                raise RejectedError("This bridge does not pass on files of this machine")
            self._permissions.allow_offered(peer, key)
            if self._permissions.allowed_url(peer, key) is None:
                raise RejectedError("The other machine has sent the URL of this file first, so it is not offered to it")
            offer = self._by_url.get(key)
            if offer is None:
                file = RemoteFile(self.hub, secrets.token_urlsafe(16), _file_name(url))
                offer = self._by_url[key] = self._by_token[file.offer] = _Offer(url, file, set())
                if len(self._by_url) > MAX_OFFERS:
                    self._remove(next(iter(self._by_url)))
            self._by_url.move_to_end(key)
            offer.peers.add(peer)
            return offer.file

    def _own_token(self, url: str) -> str:
        """Return the token in a URL of this bridge, or an empty string for another URL."""
        token, _, name = urlsplit(url).path.lstrip("/").partition("/")
        return token if _with_one_host(self._make_url(token, name)) == url else ""

    # From the peer

    def import_(self, value: SAMPValue, offers: object, peer: str, *, shown: bool = False) -> SAMPValue:
        """
        Replace the offers of a peer with URLs of this bridge.

        Parameters
        ----------
        value, offers
            As `export` returned them at the other end; they are checked.
        peer : str
            Id of the hub at the other end.
        shown : bool
            Whether the texts are shown to the user: these may mention a URL within a sentence.

        Raises
        ------
        RejectedError
            The value contains a URL of this machine or its network that is not an offer.
        SAMPValueError
            The offers are invalid.
        """
        urls = {placeholder: self._url_for(file, peer) for placeholder, file in _parse_offers(offers).items()}
        mentioned = [url for text in texts_in(value) for url in find_local_urls(text)]
        hashes = url_hashes([form for url in mentioned for form in (url.strip(), _with_one_host(url.strip()))])
        if hashes and not self._permissions.has_quota(peer, hashes):
            raise RejectedError("The other end has sent too many URLs of this machine")
        self._permissions.block_sent(peer, hashes)
        if any(find_local_urls(text, whole=shown) for text in texts_in(value)):
            raise RejectedError(
                "It contains the URL of a file, of this machine or of its local network, which the sender's bridge "
                "has not offered"
            )
        return _map_texts(value, lambda text: urls.get(text, text)) if urls else value

    def file(self, token: str, name: str) -> RemoteFile | None:
        """Return the file that a URL of this bridge names."""
        with self._lock:
            file = self._files.get(token)
            return file if file is not None and file.name == name else None

    def file_of_url(self, url: str) -> RemoteFile | None:
        """Return the file that a URL of this bridge names."""
        with self._lock:
            return self._files.get(self._own_token(url))

    def add_copy(self, path: Path, file: RemoteFile) -> None:
        """Register a file as a copy of a peer's file: it never becomes an offer."""
        with self._lock:
            self._copies[file_url_to_path(path.as_uri()) or ""] = file

    def _url_for(self, file: RemoteFile, peer: str) -> str:
        with self._lock:
            if file.hub == self.hub:
                url = self.lookup(file.offer, peer)
                if url is None:
                    raise RejectedError("It names a file that this machine does not offer, or no longer offers")
                return url
            token = self._tokens.get((file.hub, file.offer))
            if token is None:
                token = self._tokens[file.hub, file.offer] = secrets.token_urlsafe(16)
                self._files[token] = file
                if len(self._files) > MAX_OFFERS:
                    self._forget(next(iter(self._files)))
            self._files.move_to_end(token)
            return self._make_url(token, self._files[token].name)

    def _remove(self, url: str) -> None:
        self._by_token.pop(self._by_url.pop(url).file.offer)

    def _forget(self, token: str) -> None:
        file = self._files.pop(token)
        self._tokens.pop((file.hub, file.offer))


def _parse_offers(offers: object) -> dict[str, RemoteFile]:
    if not isinstance(offers, Mapping) or len(offers) > MAX_OFFERS:
        raise SAMPValueError("the offers are not a map, or there are too many")
    parsed = {}
    for placeholder, offer in offers.items():
        values = [offer.get(name) for name in RemoteFile._fields] if isinstance(offer, dict) else []
        texts = [each for each in values if isinstance(each, str)]
        if len(texts) != 3 or not all(_TOKEN.fullmatch(each) for each in texts[:2]):
            raise SAMPValueError("an offer is not valid")
        # the name becomes a part of a URL
        parsed[str(placeholder)] = RemoteFile(texts[0], texts[1], _safe_name(texts[2]))
    return parsed


def _file_name(url: str) -> str:
    return _safe_name(unquote(urlsplit(url).path).rpartition("/")[2])


def _safe_name(name: str) -> str:
    """Return a name of letters, digits, ``-``, ``_`` and ``.``: not a path, and DS9 does not decode ``%20``."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".")
    stem, dot, suffix = safe.rpartition(".")
    return (stem[:60] + dot + suffix[:20] if dot else safe[:60]) or "data"


def _with_one_host(url: str) -> str:
    """Return a URL with ``127.0.0.1`` for all names and addresses of this machine."""
    try:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and is_own_host(parts.hostname or ""):
            port = f":{parts.port}" if parts.port else ""
            return urlunsplit(parts._replace(netloc=f"127.0.0.1{port}"))
    except ValueError:
        return url
    return url


def _map_texts(value: SAMPValue, function: Callable[[str], str]) -> SAMPValue:
    """Return a copy of a value in which all strings except for keys are replaced."""
    if isinstance(value, str):
        return function(value)
    if isinstance(value, dict):
        return {key: _map_texts(item, function) for key, item in value.items()}
    return [_map_texts(item, function) for item in value]
