# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Recordings of messages: the file format, which ``samp snoop --record`` writes and ``samp replay`` reads.

The format
----------
Each entry is a line of JSON in ASCII. The first line has the version of the format. Each other line has the seconds
since the start (``t``) and a ``kind``: ``register``, ``metadata``, ``subscriptions`` and ``unregister`` of a client,
``notification``, ``call``, ``response``, ``file``, and ``end`` as the last one, which shows that the recording is
complete. Calls have numbers instead of msg-ids. Files are in a directory beside the recording.

What is left out
----------------
You may give a recording to other people, so it contains no keys of the session. Msg-ids and msg-tags are not written.
The hub's secret and the recorder's own key are removed wherever they appear. A URL of a server on the local network
usually contains a token, so it is replaced by ``http://127.0.0.1/recorded-1/name``, and equal URLs by equal texts.
Passwords, and query values that look like a token, are removed from other URLs. The results of ``client.env.get``
are not written.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self, TextIO
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from ..errors import SAMPError, SAMPWarning
from ..formats.fetching import local_copy
from ..protocol import check_message, check_response, encode
from ..transport.urls import file_url_to_path, is_ip_address, is_local_host
from .output import CommandError, Status, print_notice
from .receive import copy_into, copy_open_file, file_stem

VERSION = 1
_HEADER_KEY = "samp-recording"
#: The start of the text that replaces a URL with a token.
_REPLACED = "http://127.0.0.1/recorded-"
_REMOVED = "(removed)"

MAX_SECONDS = 1e9

#: The fields that each kind of entry has, with their types.
_FIELDS: dict[str, dict[str, type]] = {
    "register": {"client": str},
    "metadata": {"client": str, "metadata": dict},
    "subscriptions": {"client": str, "subscriptions": dict},
    "unregister": {"client": str},
    "notification": {"sender": str, "recipients": list, "to-all": bool, "message": dict},
    "call": {"sender": str, "recipients": list, "to-all": bool, "message": dict, "calls": list},
    "response": {"call": int, "response": dict},
    "file": {"url": str},
    "end": {"lines": int},
}

_URL = re.compile(r"(?<![a-z0-9+.-])(?!file:)[a-z][a-z0-9+.-]*://[^\s\"'<>\\^`{|}]+", re.IGNORECASE)
_URL_END = ".,;:!?)]"
#: What may be a token: those of this package have 22 characters, hexadecimal keys have 32.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{20,}")
_SECRET_NAME = re.compile(r"token|key|secret|passw|sig|auth|cred|session", re.IGNORECASE)
#: Shorter secrets, which the user has chosen, are not removed: they may be parts of harmless words.
_MIN_SECRET_LENGTH = 8


def local_url(url: object) -> bool:
    """Whether this is the URL of a file on this computer, or on a server in the local network."""
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "file":
        return True
    return parts.scheme in {"http", "https"} and (is_local_host(host) or is_ip_address(host) or "." not in host)


class Redactor:
    """Removes keys and tokens from messages; `secrets` are texts to remove wherever they appear."""

    def __init__(self, *secrets: str | None) -> None:
        self._secrets = [secret for secret in secrets if secret and len(secret) >= _MIN_SECRET_LENGTH]
        self._replaced: dict[str, str] = {}

    def clean(self, value: Any) -> Any:
        """Return a copy of a SAMP value without keys and tokens."""
        if isinstance(value, str):
            return self._clean_text(value)
        if isinstance(value, Mapping):
            return {self._clean_text(key): self.clean(item) for key, item in value.items()}
        return [self.clean(item) for item in value]

    def _clean_text(self, text: str) -> str:
        text = _URL.sub(lambda match: self._clean_url(match[0]), text)
        for secret in self._secrets:
            text = text.replace(secret, _REMOVED)
        return text

    def _clean_url(self, text: str) -> str:
        url = text.rstrip(_URL_END)
        end = text[len(url) :]
        try:
            parts = urlsplit(url)
            netloc = parts.netloc.rpartition("@")[2]
        except ValueError:
            return _REMOVED + end
        segments = unquote(parts.path).split("/")
        if local_url(url) or any(_TOKEN.fullmatch(segment) for segment in segments):
            name = "" if _TOKEN.fullmatch(segments[-1]) else quote(segments[-1])
            return self._replaced.setdefault(url, f"{_REPLACED}{len(self._replaced) + 1}/{name}") + end
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        cleaned = [(name, _REMOVED if _is_secret(name, value) else value) for name, value in pairs]
        if netloc == parts.netloc and cleaned == pairs:
            return text  # as it was written
        query = urlencode(cleaned) if cleaned != pairs else parts.query
        return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment)) + end


def _is_secret(name: str, value: str) -> bool:
    return bool(_SECRET_NAME.search(name) or _TOKEN.search(value) or "://" in value)


class Recorder:
    """
    Writes a recording; a context manager.

    Parameters
    ----------
    path : pathlib.Path
        The file, which must not exist.
    redactor : Redactor
        Removes what must not be written.
    complete : bool
        Whether all messages and responses of the hub are seen, not only those for all clients.
    copy_files : bool
        Whether to copy the files that messages name.
    start : datetime.datetime
        Time of the first entry.
    """

    def __init__(
        self, path: Path, redactor: Redactor, *, complete: bool, copy_files: bool, start: dt.datetime
    ) -> None:
        self.path = path
        self._redactor = redactor
        self._start = start
        self._directory = path.with_name(f"{path.stem}.files") if copy_files else None
        self._calls: dict[str, tuple[int, str]] = {}  # number and MType, by msg-id
        try:
            self._file: TextIO = open(path, "x+", encoding="ascii", opener=_open_private)  # noqa: SIM115
        except FileExistsError as error:
            raise CommandError(Status.FAILED, f"{path} already exists, and a recording does not replace it") from error
        self._write({_HEADER_KEY: VERSION, "start": start.isoformat(timespec="milliseconds"), "complete": complete})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            # Counted in the file: ^C may come when an entry has just been written
            self._file.seek(0)
            lines = sum(1 for _ in self._file)
            self._file.seek(0, os.SEEK_END)
            self.add(dt.datetime.now().astimezone(), "end", lines=lines + 1)

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()  # the recording of a session that crashes is the most valuable one

    def add(self, time: dt.datetime, kind: str, **fields: Any) -> None:
        """Write an entry; ``_`` in the names of the fields is written as ``-``."""
        seconds = round(max(0.0, (time - self._start).total_seconds()), 3)
        self._write({"t": seconds, "kind": kind, **{name.replace("_", "-"): value for name, value in fields.items()}})

    def add_event(self, time: dt.datetime, mtype: str, params: Mapping[str, Any]) -> None:
        """Write an event of the hub about a client (R26)."""
        kind = mtype.removeprefix("samp.hub.event.")
        if kind in {"register", "unregister"}:
            self.add(time, kind, client=params["id"])
        elif kind in {"metadata", "subscriptions"}:
            self.add(time, kind, client=params["id"], **{kind: self._redactor.clean(params[kind])})

    def add_message(
        self,
        time: dt.datetime,
        sender: str,
        message: Mapping[str, Any],
        traffic: Mapping[str, Any],
        file: BinaryIO | None,
    ) -> None:
        """
        Write a message, and before it the file that it names, if files are copied.

        `traffic` has the hub's information about the message: ``kind``, ``recipient-ids``, ``msg-ids`` and ``to-all``.
        `file` is what `open_named_file` has returned.
        """
        mtype, params = message["samp.mtype"], message["samp.params"]
        if self._directory is not None and local_url(params.get("url")):
            self._copy_file(time, self._directory, mtype, params, file)
        cleaned = self._redactor.clean(message)
        if mtype == "samp.msg.progress" and "msgid" in params:
            number, _ = self._calls.get(params["msgid"], (None, ""))
            cleaned["samp.params"]["msgid"] = f"call {number}" if number is not None else _REMOVED
        fields: dict[str, Any] = {"recipients": traffic["recipient-ids"], "to_all": traffic["to-all"] == "1"}
        if traffic["kind"] == "call":
            first = len(self._calls) + 1
            self._calls.update({each: (first + index, mtype) for index, each in enumerate(traffic["msg-ids"])})
            fields["calls"] = [self._calls[each][0] for each in traffic["msg-ids"]]
        self.add(time, traffic["kind"], sender=sender, **fields, message=cleaned)

    def add_response(self, time: dt.datetime, msg_id: str, response: Mapping[str, Any]) -> None:
        """Write a response, if its call is in the recording."""
        if msg_id not in self._calls:
            return
        number, mtype = self._calls[msg_id]
        cleaned = self._redactor.clean(response)
        if mtype == "client.env.get" and "value" in cleaned.get("samp.result", {}):
            cleaned["samp.result"]["value"] = _REMOVED
        self.add(time, "response", call=number, response=cleaned)

    def _copy_file(
        self, time: dt.datetime, directory: Path, mtype: str, params: Mapping[str, Any], file: BinaryIO | None
    ) -> None:
        url = params["url"].strip()
        public_url = self._redactor.clean(url)
        stem = file_stem({**params, "url": public_url}, mtype)
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            if file is not None:
                path = copy_open_file(directory, stem, file, public_url)
            else:
                with local_copy(url) as source:
                    path = copy_into(directory, stem, source, public_url)
        except (SAMPError, OSError) as error:
            text = self._redactor.clean(str(error))
            self.add(time, "file", url=public_url, error=text)
            print_notice(f"a file was not recorded: {text}")
        else:
            self.add(
                time, "file", url=public_url, path=f"{directory.name}/{path.name}", sha256=_file_digest(path)
            )


def open_named_file(params: Mapping[str, Any]) -> BinaryIO | None:
    """
    Open the file that a message names, if it is on this computer.

    Call it as soon as the message arrives, because the sender may remove the file. If the file cannot be opened, return
    None; `Recorder.add_message` reports the error.
    """
    url = params.get("url")
    path = file_url_to_path(url.strip()) if isinstance(url, str) else None
    try:
        return open(path, "rb") if path is not None and Path(path).is_file() else None
    except OSError:
        return None


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Reading


class Entry(NamedTuple):
    """A line of a recording."""

    line: int
    seconds: float
    kind: str
    fields: dict[str, Any]


class Recording(NamedTuple):
    """A recording that has been read and checked."""

    #: Whether all messages and responses of the hub were seen.
    complete: bool
    entries: list[Entry]


def read_recording(path: Path, *, partial: bool = False) -> Recording:
    """
    Read and check a recording with the files that belong to it.

    With `partial` it may be incomplete. Raise `CommandError` with the number of the invalid line.
    """
    with path.open("rb") as file:
        lines = file.read().splitlines(keepends=True)
    if not lines:
        raise _error(path, 1, "the file is empty")
    header = _parse(path, 1, lines[0])
    version = header.get(_HEADER_KEY)
    if version is None:
        raise _error(path, 1, "this is not a recording of samp snoop")
    if version != VERSION:
        text = f"this recording has version {version!r} of the format; this version of samp reads version {VERSION}"
        raise _error(path, 1, text)
    entries = list(_read_entries(path, lines, partial))
    if not entries or entries[-1].kind != "end":
        if not partial:
            text = "the recording ends after this line; --partial sends the messages up to here"
            raise _error(path, len(lines), text)
    elif entries[-1].fields["lines"] != len(lines):
        text = f"the recording had {entries[-1].fields['lines']} lines and has {len(lines)}"
        raise _error(path, len(lines), text)
    return Recording(bool(header.get("complete")), entries)


def _read_entries(path: Path, lines: list[bytes], partial: bool) -> Iterator[Entry]:
    seconds = 0.0
    calls: set[int] = set()
    for number, line in enumerate(lines[1:], 2):
        if number == len(lines) and not line.endswith(b"\n"):
            if partial:
                return
            raise _error(path, number, "the recording ends in this line; --partial sends the messages before it")
        fields = _parse(path, number, line)
        try:
            _check_entry(path, fields, seconds, calls)
        except (SAMPError, ValueError) as error:
            raise _error(path, number, str(error)) from error
        seconds = fields["t"]
        yield Entry(number, seconds, fields["kind"], fields)


def _check_entry(path: Path, fields: dict[str, Any], seconds: float, calls: set[int]) -> None:
    """Check an entry; `seconds` is the time of the one before it, `calls` has the numbers of the earlier calls."""
    _check_types(fields, {"t": float, "kind": str})
    kind = fields["kind"]
    if kind not in _FIELDS:
        raise ValueError(f"unknown kind {kind!r}")
    _check_types(fields, _FIELDS[kind])
    if not seconds <= fields["t"] < MAX_SECONDS:
        raise ValueError("the time is earlier than in the line before, or invalid")
    _check_fields(path, kind, fields, calls)


def _check_types(fields: Mapping[str, Any], types: Mapping[str, type]) -> None:
    """Check the types of fields; an int is accepted where a float is expected."""
    for name, expected in types.items():
        value = fields.get(name)
        allowed = (int, float) if expected is float else expected
        if not isinstance(value, allowed) or (isinstance(value, bool) and expected is not bool):
            raise ValueError(f"{name!r} is missing, or is not of type {expected.__name__}")


def _check_fields(path: Path, kind: str, fields: dict[str, Any], calls: set[int]) -> None:
    """Check the fields of an entry. Convert them to SAMP values: the recording may have been edited by hand."""
    checks: dict[str, Callable[[Any], object]] = {"message": check_message, "response": check_response}
    for name in ("message", "response", "metadata", "subscriptions"):
        if name in fields:
            with warnings.catch_warnings():  # about texts that are not ASCII: they were sent before
                warnings.simplefilter("ignore", SAMPWarning)
                fields[name] = encode(fields[name], name)
            checks.get(name, bool)(fields[name])
    if not all(isinstance(each, str) for each in fields.get("recipients", ())):
        raise ValueError("the recipients are not strings")
    if kind == "call":
        if len(fields["calls"]) != len(fields["recipients"]) or not calls.isdisjoint(fields["calls"]):
            raise ValueError("a call needs a new number for each recipient")
        calls.update(fields["calls"])
    if kind == "response" and fields["call"] not in calls:
        raise ValueError(f"there is no call {fields['call']} before its response")
    if kind == "file" and "path" in fields:
        _check_copy(path.parent, str(fields["path"]), fields.get("sha256"))


def _check_copy(directory: Path, name: str, digest: object) -> None:
    copy = directory / name
    if not copy.resolve().is_relative_to(directory.resolve()):  # someone else's recording must not send other files
        raise ValueError(f"the file {name!r} is not beside the recording")
    if not copy.is_file():
        raise ValueError(f"the file {name!r} is missing")
    if _file_digest(copy) != digest:
        raise ValueError(f"the file {name!r} is not the one that was recorded")


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise _error(path, number, f"the line is damaged: {error}") from error
    if not isinstance(fields, dict):
        raise _error(path, number, "the line is damaged: it is not a JSON object")
    return fields


def _error(path: Path, line: int, text: str) -> CommandError:
    return CommandError(Status.FAILED, f"{path}:{line}: {text}")
