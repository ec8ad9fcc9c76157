# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``samp receive`` writes the files that other programs send.

Messages suggest file names. Whatever a message suggests, its file stays in the directory, is not hidden, and replaces
no other file. The name has no characters that are special for a shell or a terminal.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote, urlsplit

from ..client.handlers import error_text
from ..errors import SAMPError, SAMPHubError
from ..formats.detection import PEEK_SIZE, is_votable
from ..formats.fetching import local_copy
from ..integrated_client import SAMPIntegratedClient
from ..protocol import error_response, ok_response
from .arguments import Command, pattern, positive_number, seconds
from .client_session import NameCache, connected_client, get_interruptible
from .output import CommandError, Status, add_json_option, help_epilog, print_json, print_notice, sanitize

#: Maximum number of characters of a name, without the suffix; file systems allow 255 bytes.
MAX_STEM_LENGTH = 80
_MAGIC = {
    b"SIMPLE  =": ".fits",
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"\xcd\xf3\x00\x01": ".cdf",
    b"\xcd\xf2\x60\x02": ".cdf",
    b"PAR1": ".parquet",
    b"# %ECSV": ".ecsv",
}
#: Suffixes that are taken from the URL if the content is not recognized.
_URL_SUFFIXES = {".fits", ".fit", ".vot", ".xml", ".csv", ".tsv", ".txt", ".cdf", ".moc", ".gz"}
#: Names of devices on Windows, whatever the suffix.
_WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


def file_stem(params: Mapping[str, Any], mtype: str) -> str:
    """Make a file name, without suffix, from the ``name`` of a message, the end of its ``url``, or the MType."""
    url = params.get("url")
    from_url = unquote(urlsplit(url).path.rpartition("/")[2]) if isinstance(url, str) else ""
    for text in (params.get("name"), from_url, mtype):
        if isinstance(text, str) and (stem := _safe_stem(text)):
            return stem
    return "message"


def _safe_stem(text: str) -> str:
    text = unicodedata.normalize("NFC", text[: 4 * MAX_STEM_LENGTH])
    text = "".join(c if c.isalnum() or c in "._-+" else "_" for c in text)
    text = re.sub("_{2,}", "_", text).strip("._-+")[:MAX_STEM_LENGTH].rstrip("._-+")
    while len(text.encode("utf-8", "replace")) > 2 * MAX_STEM_LENGTH:
        text = text[:-1]
    return f"_{text}" if _WINDOWS_DEVICES.match(text) else text


def file_suffix(beginning: bytes, url: str) -> str:
    """Return the suffix for a file with these first bytes; if they are not recognized, the suffix of its URL."""
    if beginning.startswith(b"\x1f\x8b"):
        inner = Path(urlsplit(url).path.removesuffix(".gz")).suffix.lower()
        return f"{inner}.gz" if inner in _URL_SUFFIXES else ".gz"
    for magic, suffix in _MAGIC.items():
        if beginning.startswith(magic):
            return suffix
    if is_votable(lambda count: beginning[:count]):
        return ".vot"
    suffix = Path(urlsplit(url).path).suffix.lower()
    return suffix if suffix in _URL_SUFFIXES else ".dat"


def new_file(directory: Path, stem: str, suffix: str) -> BinaryIO:
    """Open a new file in a directory; if the name is taken, add a number to it."""
    if stem.lower().endswith(suffix) and stem.lower() != suffix:
        stem = stem[: -len(suffix)]
    number = 1
    while True:
        name = f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}"
        try:
            return open(directory / name, "xb")
        except FileExistsError:
            number += 1


def copy_into(directory: Path, stem: str, source: Path, url: str) -> Path:
    """Copy a file to a new one in a directory, and return its path; if that fails, remove the new file."""
    with source.open("rb") as file:
        return copy_open_file(directory, stem, file, url)


def copy_open_file(directory: Path, stem: str, file: BinaryIO, url: str) -> Path:
    """Copy an open file as `copy_into` does."""
    suffix = file_suffix(file.read(PEEK_SIZE), url)
    file.seek(0)
    with new_file(directory, stem, suffix) as copy:
        path = Path(os.fsdecode(copy.name))
        try:
            shutil.copyfileobj(file, copy, 1024 * 1024)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return path


_EPILOG = (
    help_epilog(
        """\
  samp receive             tables, images, spectra, coverages; until ^C
  samp receive -o data --mtype 'table.load.*'
  samp receive --count 1 --timeout 60 --json | jq -r .path
""",
        {
            0: "stopped by ^C, or after the number of files that --count gives",
            1: "",
            3: "",
            5: "no message arrived within --timeout",
            130: None,
        },
    )
    + """

The parameters of a message without a url, such as coord.pointAt.sky, are
written as JSON. No file is overwritten: if a name is taken, a number is added.
"""
)

DEFAULT_MTYPES = ("table.load.*", "image.load.*", "spectrum.load.*", "coverage.load.*")


class ReceivedMessage(NamedTuple):
    """A message that has arrived. The msg-id of a notification is None."""

    sender_id: str
    msg_id: str | None
    mtype: str
    params: dict[str, Any]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mtype",
        action="append",
        type=pattern,
        help=f"receive this MType or wildcard; may be repeated (default: {', '.join(DEFAULT_MTYPES)})",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="directory for the files (default: the current one)",
    )
    parser.add_argument("--count", type=positive_number, metavar="N", help="stop after N files")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="stop when no message arrives for this time (0: never)",
    )
    parser.add_argument(
        "--name", default="samp receive", help="the name that other programs show (default: %(default)s)"
    )
    add_json_option(parser, "a line of JSON for each file")


def _run(options: argparse.Namespace) -> Status:
    patterns = options.mtype or DEFAULT_MTYPES
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            Status.FAILED, f"{options.output} cannot be used as a directory: {error.strerror}"
        ) from error
    events: SimpleQueue[Any] = SimpleQueue()

    def on_message(_key: str, sender_id: str, msg_id: str | None, mtype: str, params: Any, _extra: Any) -> None:
        events.put(ReceivedMessage(sender_id, msg_id, mtype, params))

    caches: list[NameCache] = []

    def bind(client: SAMPIntegratedClient) -> None:
        caches.append(NameCache(client))
        caches[0].subscribe()
        for mtype in patterns:
            client.bind_receive_message(mtype, on_message)

    try:
        with connected_client(options.name, "Writes files", callable=True, events=events, prepare=bind) as client:
            print_notice(f"waiting for {', '.join(patterns)}, until ^C")
            return _write_all(client, events, caches[0], options)
    except KeyboardInterrupt:  # the normal end
        return Status.OK


def _write_all(
    client: SAMPIntegratedClient, events: SimpleQueue[Any], names: NameCache, options: argparse.Namespace
) -> Status:
    written = 0
    while options.count is None or written < options.count:
        try:
            item = get_interruptible(events, options.timeout or None)
        except Empty:
            print_notice(f"no message arrived within {options.timeout:g} s")
            return Status.TIMEOUT
        if item == "lost":
            raise SAMPHubError("The hub has stopped.")
        written += _save(client, item, names, options)
    return Status.OK


def _save(
    client: SAMPIntegratedClient, message: ReceivedMessage, names: NameCache, options: argparse.Namespace
) -> bool:
    """Write one file, reply, and print a line; return whether the file was written."""
    started = time.monotonic()
    mtype, sender = sanitize(message.mtype), names.client_label(message.sender_id)
    try:
        path = _write(message, options.output)
    except (SAMPError, OSError, ValueError) as error:
        _reply(client, message, error_response(error_text(error)))
        print_notice(f"{mtype} from {sender}: {error}")
        return False
    _reply(client, message, ok_response())
    size = path.stat().st_size
    if options.json:
        entry = {
            "path": str(path),
            "bytes": size,
            "mtype": message.mtype,
            "sender": {"id": message.sender_id, "name": names.name(message.sender_id)},
            "params": message.params,
            "seconds": round(time.monotonic() - started, 3),
        }
        print_json(entry, one_line=True)
    else:
        print(f"{sanitize(str(path), 1000)}  {mtype} from {sender}, {size} bytes", flush=True)
    return True


def _write(message: ReceivedMessage, directory: Path) -> Path:
    stem = file_stem(message.params, message.mtype)
    url = message.params.get("url")
    if isinstance(url, str) and url.strip():
        with local_copy(url.strip()) as source:
            return copy_into(directory, stem, source, url.strip())
    with new_file(directory, stem, ".json") as file:
        file.write(json.dumps({"mtype": message.mtype, "params": message.params}, indent=2).encode("ascii") + b"\n")
        return Path(file.name)


def _reply(client: SAMPIntegratedClient, message: ReceivedMessage, response: dict[str, Any]) -> None:
    if message.msg_id is None:
        return
    try:
        client.reply(message.msg_id, response)
    except SAMPHubError:
        raise
    except SAMPError as error:  # the sender is gone, or its call has timed out
        print_notice(f"the hub did not accept the reply: {error}")


COMMANDS = {"receive": Command(_add_arguments, _run, _EPILOG)}
