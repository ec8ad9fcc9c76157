# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Which URLs a web client may have fetched for it (R46).

A web client may read, through the hub, the URLs that a program of the Standard Profile mentioned where that web client
could see them: in a message, a response, or metadata. Nothing else, or a page could read the user's files and
intranet.

A page must not be able to get a URL into the book by having a program repeat it ("cannot open
``file:///home/me/.ssh/id_rsa``"). Whether a program repeats a URL or means it cannot be told, so the first mention
decides: a URL that a web client has sent to others before any program mentioned it stays out of the book, for all web
clients and as long as the hub runs. And a URL counts as mentioned only where it is the whole of a string.

Each URL that is shut out in this way must be remembered. The pages of one origin can do that to a bounded number; from
then on what they send must not have new URLs in it (`UrlBook.has_room`), and they get no new ones to read. Others do
not suffer.

URLs are compared by what they name: a browser may percent-encode what a program left plain, and there are
several ways to write a local file.
"""

from __future__ import annotations

import posixpath
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit

from ..protocol import SAMPValue
from ..transport.urls import URL_SAFE_CHARS, file_url_to_path

__all__ = ["UrlPermissions", "find_urls", "normalize_url", "url_hashes"]

#: URLs that are remembered for each web client, the latest.
MAX_URLS = 5000
#: URLs that the pages of one origin may be the first to mention.
MAX_BLOCKED = 20_000
#: URLs of programs of which it is remembered that they were the first, the latest: a page that repeats one of these
#: does not shut it out.
MAX_TRUSTED = 200_000
#: Longer strings are no URLs that anybody fetches.
MAX_LENGTH = 8192

_URL = re.compile(r"(?:https?|file):[^\x00-\x20\x7f]", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


def find_urls(value: SAMPValue) -> Iterator[str]:
    """
    Find the URLs in a message, response or metadata.

    Parameters
    ----------
    value : SAMPValue
        Anything.

    Yields
    ------
    str
        Each string in it that is a URL as a whole.
    """
    waiting: list[SAMPValue] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if len(item) <= MAX_LENGTH and _URL.match(item.lstrip()[:16]):
                yield item.strip()
        else:
            waiting.extend(item.values() if isinstance(item, dict) else item)


def normalize_url(url: str) -> str | None:
    """
    Bring a URL into the form in which URLs are compared.

    Parameters
    ----------
    url : str
        Any text.

    Returns
    -------
    str or None
        The same for all ways to write one URL; None for what is no ``http``, ``https`` or ``file`` URL.
    """
    path = file_url_to_path(url)
    if path is not None:
        return "file:" + posixpath.normpath(path)
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    if not parts.hostname:
        return None
    rest = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return f"{parts.scheme}://{parts.hostname}:{port}{quote(rest, safe=URL_SAFE_CHARS)}"


def url_hashes(value: SAMPValue) -> frozenset[int]:
    """
    Find the URLs in something, for `UrlBook`'s accounts.

    Parameters
    ----------
    value : SAMPValue
        Anything.

    Returns
    -------
    frozenset of int
        What stands for them there: hashes, as there may be a hundred thousand long URLs. Just more than may be
        (`MAX_NAMED`) when there are more.
    """
    keys: set[int] = set()
    for url in find_urls(value):
        key = normalize_url(url)
        if key is not None:
            keys.add(hash(key))
            if len(keys) > MAX_BLOCKED:
                break
    return frozenset(keys)


class UrlPermissions:
    """
    The URLs that each web client may fetch. Safe to use from any thread.

    A client is whatever object the caller tells clients apart by; here it is the token of its translator.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._allowed: dict[str, OrderedDict[str, str]] = {}
        self._origins: dict[str, str] = {}
        self._trusted: dict[int, None] = {}  # in their order
        self._first_from_pages: set[int] = set()
        self._blocked: Counter[str] = Counter()  # how many of these are from pages of an origin

    def add_client(self, client: str, origin: str = "") -> None:
        """
        Begin a page of the book for a client.

        Parameters
        ----------
        client : str
            Who.
        origin : str
            What it shares its account of first mentions with.
        """
        with self._lock:
            self._allowed[client] = OrderedDict()
            self._origins[client] = origin

    def remove_client(self, client: str) -> None:
        """Forget a client."""
        with self._lock:
            self._allowed.pop(client, None)
            self._origins.pop(client, None)

    def allow_from_client(self, client: str, value: SAMPValue) -> None:
        """
        Allow a client the URLs that it has seen a program of the Standard Profile mention.

        Parameters
        ----------
        client : str
            Who could see it.
        value : SAMPValue
            The message, response or metadata.
        """
        for url in find_urls(value):
            key = normalize_url(url)
            if key is not None:
                self._allow(client, key, url)

    def has_quota(self, client: str, keys: frozenset[int]) -> bool:
        """
        Tell whether a web client may send something; if not, nobody must get to see it.

        Parameters
        ----------
        client : str
            Who sends.
        keys : frozenset of int
            What it has in it, see `keys_in`.
        """
        with self._lock:
            new = self._new_of(keys)
            return not new or self._blocked[self._origins.get(client, "")] + len(new) <= MAX_BLOCKED

    def block_from_page(self, client: str, keys: frozenset[int]) -> None:
        """
        Take note of the URLs in what a web client has sent: those that are new are never allowed later.

        Parameters
        ----------
        client : str
            Who has sent it.
        keys : frozenset of int
            What it had in it, see `keys_in`.
        """
        with self._lock:
            new = self._new_of(keys)
            self._first_from_pages |= new
            self._blocked[self._origins.get(client, "")] += len(new)

    def lookup(self, client: str, target: str) -> str | None:
        """
        Find the URL that a client asks for.

        Parameters
        ----------
        client : str
            Who asks.
        target : str
            What came behind the translator's URL: the URL as it is, or percent-encoded as a whole.

        Returns
        -------
        str or None
            The URL as the program wrote it; None if this client may not have it.
        """
        for text in (target, unquote(target)):
            key = normalize_url(text)
            if key is not None:
                with self._lock:
                    allowed = self._allowed.get(client)
                    if allowed is not None and key in allowed:
                        return allowed[key]
        return None

    def _new_of(self, keys: frozenset[int]) -> set[int]:
        return {key for key in keys if key not in self._trusted and key not in self._first_from_pages}

    def _allow(self, client: str, key: str, url: str) -> None:
        with self._lock:
            allowed = self._allowed.get(client)
            if allowed is None or hash(key) in self._first_from_pages:
                return
            if hash(key) not in self._trusted:
                if self._blocked[self._origins[client]] >= MAX_BLOCKED:
                    return
                self._trusted[hash(key)] = None
                if len(self._trusted) > MAX_TRUSTED:
                    del self._trusted[next(iter(self._trusted))]
            allowed[key] = url
            allowed.move_to_end(key)
            if len(allowed) > MAX_URLS:
                allowed.popitem(last=False)
