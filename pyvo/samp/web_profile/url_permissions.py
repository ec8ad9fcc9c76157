# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The URLs that a web client may read through the hub (R46).

These are the URLs that a client of the Standard Profile mentioned where the web client could see them: in a message, a
response or metadata. With any other URL a page could read the user's files and intranet.

A page must not gain access to a URL by tricking a client into repeating it ("cannot open
``file:///home/me/.ssh/id_rsa``"). The hub cannot see whether a client repeats a URL or offers it, so the first mention
decides: a URL that a web client sent before any client of the Standard Profile mentioned it is blocked, for all web
clients and as long as the hub runs. And a URL counts as mentioned only if it is a whole string.

The hub must remember each blocked URL. The pages of one origin can block a limited number (`UrlPermissions.has_quota`).
After that they can send no new URLs, and are allowed no new ones. Pages of other origins are not affected.

URLs are compared in a normal form: a browser may percent-encode what a client did not, and there are
several ways to write the URL of a local file.
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

#: Latest URLs that each web client may read.
MAX_URLS = 5000
#: URLs that the pages of one origin may block by being the first to mention them.
MAX_BLOCKED = 20_000
#: Latest URLs that clients of the Standard Profile mentioned first: a page that repeats one of these does not block it.
MAX_TRUSTED = 200_000
#: Longer strings are ignored.
MAX_LENGTH = 8192

_URL = re.compile(r"(?:https?|file):[^\x00-\x20\x7f]", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


def find_urls(value: SAMPValue) -> Iterator[str]:
    """Yield each string in a value that is a URL as a whole."""
    stack: list[SAMPValue] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if len(item) <= MAX_LENGTH and _URL.match(item.lstrip()[:16]):
                yield item.strip()
        else:
            stack.extend(item.values() if isinstance(item, dict) else item)


def normalize_url(url: str) -> str | None:
    """
    Return the normal form of a URL, which is the same for all ways to write it.

    It is None for a text that is not an ``http``, ``https`` or ``file`` URL.
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
    Return hashes of the URLs in a value: `UrlPermissions` may have to remember a hundred thousand long URLs.

    At most `MAX_BLOCKED` + 1 hashes are returned: one more than an origin may block.
    """
    hashes: set[int] = set()
    for url in find_urls(value):
        key = normalize_url(url)
        if key is not None:
            hashes.add(hash(key))
            if len(hashes) > MAX_BLOCKED:
                break
    return frozenset(hashes)


class UrlPermissions:
    """The URLs that each web client, identified by its token, may read. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._allowed: dict[str, OrderedDict[str, str]] = {}
        self._origins: dict[str, str] = {}
        self._trusted: dict[int, None] = {}  # in order of mention
        self._blocked: set[int] = set()
        self._blocked_by_origin: Counter[str] = Counter()  # how many each origin has blocked

    def add_client(self, token: str, origin: str = "") -> None:
        """Add a client. All clients of one origin share a quota of URLs that they may block."""
        with self._lock:
            self._allowed[token] = OrderedDict()
            self._origins[token] = origin

    def remove_client(self, token: str) -> None:
        """Remove a client."""
        with self._lock:
            self._allowed.pop(token, None)
            self._origins.pop(token, None)

    def allow_offered(self, token: str, value: SAMPValue) -> None:
        """Allow a client to read the URLs in a value that came from a client of the Standard Profile."""
        for url in find_urls(value):
            key = normalize_url(url)
            if key is not None:
                self._allow(token, key, url)

    def has_quota(self, token: str, hashes: frozenset[int]) -> bool:
        """Whether a client may send a value with these URLs (`url_hashes`). If not, no other client may receive it."""
        with self._lock:
            new = self._new_hashes(hashes)
            return not new or self._blocked_by_origin[self._origins.get(token, "")] + len(new) <= MAX_BLOCKED

    def block_sent(self, token: str, hashes: frozenset[int]) -> None:
        """Block the URLs (`url_hashes`) that a client has sent and that were not mentioned before."""
        with self._lock:
            new = self._new_hashes(hashes)
            self._blocked |= new
            self._blocked_by_origin[self._origins.get(token, "")] += len(new)

    def allowed_url(self, token: str, target: str) -> str | None:
        """
        Return a URL as the other client wrote it, or None if this client may not read it.

        ``target`` is the end of a translated URL: the URL as it is, or percent-encoded as a whole.
        """
        for text in (target, unquote(target)):
            key = normalize_url(text)
            if key is not None:
                with self._lock:
                    allowed = self._allowed.get(token)
                    if allowed is not None and key in allowed:
                        return allowed[key]
        return None

    def _new_hashes(self, hashes: frozenset[int]) -> set[int]:
        return {each for each in hashes if each not in self._trusted and each not in self._blocked}

    def _allow(self, token: str, key: str, url: str) -> None:
        with self._lock:
            allowed = self._allowed.get(token)
            if allowed is None or hash(key) in self._blocked:
                return
            if hash(key) not in self._trusted:
                if self._blocked_by_origin[self._origins[token]] >= MAX_BLOCKED:
                    return
                self._trusted[hash(key)] = None
                if len(self._trusted) > MAX_TRUSTED:
                    del self._trusted[next(iter(self._trusted))]
            allowed[key] = url
            allowed.move_to_end(key)
            if len(allowed) > MAX_URLS:
                allowed.popitem(last=False)
