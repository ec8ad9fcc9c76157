# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The MTypes that may cross a bridge, and the check for URLs in data from the remote end.

Both ends of a bridge check everything, because the other one may be hostile. Outgoing data are checked so that this
machine discloses no more than its user has allowed; incoming data, so that the remote end cannot make a program of this
machine read a file, or call a service that only this machine can reach.

No host name is looked up (R37). So a public host name that resolves to an address of this machine is not recognized.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..constants import SAFE_MTYPES
from ..protocol import SAMPValue, best_match, check_pattern, matches
from ..transport.urls import file_url_to_path, is_ip_address, is_local_host

#: MTypes that never cross a bridge, even if a pattern allows them.
NEVER = ("client.env.get", "samp.hub.*", "x-samp.hub.*")

#: Schemes whose authority is not a host of the network.
_NAMING_SCHEMES = {"ivo", "vos", "urn", "doi"}
#: What Java and browsers accept in front of a URL.
_PREFIX = re.compile(r"(?:url|jar|view-source|feed|blob):", re.IGNORECASE)
_LOCAL_SCHEME = re.compile(r"(?:file|netdoc):", re.IGNORECASE)
# Programs accept any number of slashes after the schemes of the web, and also backslashes
_WITH_HOST = re.compile(
    r"(?:(https?|ftps?|wss?):[/\\]*|([a-z][a-z0-9+.-]*):[/\\]{2,})([^/\\?#\s\"'<>]+)[^\s\"'<>]*", re.IGNORECASE
)
_FILE_IN_TEXT = re.compile(r"(?:file|netdoc):[/\\][^\s\"'<>]*", re.IGNORECASE)
_PLAIN_HOST = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z0-9-]+\.?", re.IGNORECASE)
_LOCAL_DOMAINS = (".local", ".localhost", ".localdomain", ".internal", ".intranet", ".lan", ".home", ".home.arpa")


class Policy:
    """
    The messages and files that a user allows to cross the bridge.

    Parameters
    ----------
    allow_in, allow_out : iterable of str
        MTypes and wildcards that may come in or go out, in addition to `SAFE_MTYPES`.
    files : bool
        Whether files and URLs of this machine may be read by the remote end, if a local program sends them.

    Raises
    ------
    SAMPValueError
        A pattern is invalid.
    """

    def __init__(self, allow_in: Iterable[str] = (), allow_out: Iterable[str] = (), *, files: bool = True) -> None:
        self.incoming = tuple(dict.fromkeys([*SAFE_MTYPES, *allow_in]))
        self.outgoing = tuple(dict.fromkeys([*SAFE_MTYPES, *allow_out]))
        for pattern in (*self.incoming, *self.outgoing):
            check_pattern(pattern)
        self.files = files

    def may_come_in(self, mtype: str) -> bool:
        """
        Return whether a message of the remote end may be delivered here.

        Parameters
        ----------
        mtype : str
            Its MType.

        Returns
        -------
        bool
            Whether it may pass.
        """
        return _is_allowed(mtype, self.incoming)

    def may_go_out(self, mtype: str) -> bool:
        """
        Return whether a message of this hub may be sent to the remote end.

        Parameters
        ----------
        mtype : str
            Its MType.

        Returns
        -------
        bool
            Whether it may pass.
        """
        return _is_allowed(mtype, self.outgoing)


def _is_allowed(mtype: str, patterns: Iterable[str]) -> bool:
    return best_match(dict.fromkeys(patterns, True), mtype) is not None and not any(
        matches(pattern, mtype) for pattern in NEVER
    )


def restrict(subscriptions: Mapping[str, Any], patterns: Iterable[str]) -> dict[str, Any]:
    """Restrict subscriptions to patterns: ``*`` is replaced by the patterns."""
    restricted: dict[str, Any] = {}
    for subscription, notes in subscriptions.items():
        for pattern in patterns:
            narrower = (
                subscription if matches(pattern, subscription) else pattern if matches(subscription, pattern) else None
            )
            if narrower is not None and not any(matches(never, narrower) for never in NEVER):
                # a narrower subscription of the client itself takes precedence (R14)
                restricted[narrower] = subscriptions.get(narrower, notes)
    return restricted


def texts_in(value: SAMPValue) -> Iterator[str]:
    """Yield all strings in a value, keys included."""
    stack: list[SAMPValue] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            stack.extend(item.values())
            stack.extend(item)
        else:
            stack.extend(item)


def is_own_url(url: str) -> bool:
    """Whether a text consists of the URL of a file or of a server of this machine."""
    if file_url_to_path(url) is not None:
        return True
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and is_own_host(parts.hostname or "")
    except ValueError:
        return False


def is_own_host(host: str) -> bool:
    """Whether a host is this machine: loopback, one of its addresses, or its name."""
    own = socket.gethostname().lower()
    if is_local_host(host) or host in {own, own.partition(".")[0], f"{own.partition('.')[0]}.local"}:
        return True
    if not is_ip_address(host):
        return False
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((host, 0))  # possible for an address of this machine only
        except (OSError, OverflowError):
            return False
    return True


def find_local_urls(text: str, *, whole: bool = False) -> list[str]:
    """
    Find URLs of files, of this machine and of its local network in a text from the remote end.

    Parameters
    ----------
    text : str
        The text.
    whole : bool
        Whether to find only a URL that is the whole text, as in texts that are shown to the user. Blanks around it, and
        the prefixes that Java accepts, are ignored.
    """
    if ":" not in text and "\\" not in text:
        return []
    bare = text.strip().strip("\x00")
    while match := _PREFIX.match(bare):
        bare = bare[match.end() :].lstrip()
    if _LOCAL_SCHEME.match(bare) or bare.startswith("\\\\"):
        return [bare]
    if whole:
        match = _WITH_HOST.match(bare)
        return [bare] if match is not None and not _is_remote(match) else []
    found = [match[0] for match in _FILE_IN_TEXT.finditer(text)]
    return found + [match[0] for match in _WITH_HOST.finditer(text) if not _is_remote(match)]


def _is_remote(url: re.Match[str]) -> bool:
    """Whether the text of a URL shows that its host is on the internet; False for unusual spellings."""
    web_scheme, other_scheme, authority = url.groups()
    if (web_scheme or other_scheme).lower() in _NAMING_SCHEMES:
        return True
    host = authority.rpartition("@")[2]
    if host.startswith("["):
        address = host[1:].partition("]")[0]
        return is_ip_address(address) and _is_foreign(ipaddress.ip_address(address))
    host = host.partition(":")[0].lower()
    try:
        # Also 127.1, 0x7f.1 and 2130706433, which programs take for addresses
        return _is_foreign(ipaddress.ip_address(socket.inet_aton(host)))
    except (OSError, ValueError):
        name = host.rstrip(".")
        return bool(_PLAIN_HOST.fullmatch(host)) and not name.endswith(_LOCAL_DOMAINS) and not is_own_host(name)


def _is_foreign(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is on the internet, and does not belong to this machine."""
    embedded = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if embedded is None and address.version == 6 and address in ipaddress.ip_network("64:ff9b::/96"):
        embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    address = embedded or address
    return address.is_global and not address.is_multicast and not is_own_host(str(address))
