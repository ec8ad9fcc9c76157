# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``samp receive``: what other programs send, as files.

Names for files that others send.

The name that a message gives is a stranger's: it never leaves the directory, hides no file, replaces none, and has
nothing in it that a shell or a terminal would obey.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterator, Mapping
from itertools import count
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
from .arguments import pattern, positive_number, seconds
from .client_session import NameCache, connected_client, get_interruptible
from .output import CommandError, Status, add_json_option, help_epilog, print_json, sanitize

__all__ = ["EPILOG", "add_arguments", "copy_into", "file_stem", "file_suffix", "new_file", "run"]

#: Characters of a name, without the suffix; file systems take 255 bytes.
MAX_LENGTH = 80
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
#: Suffixes that are taken over from a URL when the content does not tell.
_KNOWN = {".fits", ".fit", ".vot", ".xml", ".csv", ".tsv", ".txt", ".cdf", ".moc", ".gz"}
#: Names that Windows has for devices, whatever their suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


def file_stem(params: Mapping[str, Any], mtype: str) -> str:
    """
    Make a file name, without suffix, of what a message says.

    Parameters
    ----------
    params : mapping
        Its parameters; ``name`` counts, else the end of ``url``.
    mtype : str
        What it is named by otherwise.
    """
    url = params.get("url")
    from_url = unquote(urlsplit(url).path.rpartition("/")[2]) if isinstance(url, str) else ""
    for text in (params.get("name"), from_url, mtype):
        if isinstance(text, str) and (stem := _safe_stem(text)):
            return stem
    return "message"


def _safe_stem(text: str) -> str:
    text = unicodedata.normalize("NFC", text[: 4 * MAX_LENGTH])
    text = "".join(c if c.isalnum() or c in "._-+" else "_" for c in text)
    text = re.sub("_{2,}", "_", text).strip("._-+")[:MAX_LENGTH].rstrip("._-+")
    while len(text.encode("utf-8", "replace")) > 2 * MAX_LENGTH:
        text = text[:-1]
    return f"_{text}" if _DEVICES.match(text) else text


def file_suffix(beginning: bytes, url: str) -> str:
    """
    Tell the suffix of a file.

    Parameters
    ----------
    beginning : bytes
        Its first bytes, which count most.
    url : str
        Where it came from.
    """
    if beginning.startswith(b"\x1f\x8b"):
        inner = Path(urlsplit(url).path.removesuffix(".gz")).suffix.lower()
        return f"{inner}.gz" if inner in _KNOWN else ".gz"
    for magic, suffix in _MAGIC.items():
        if beginning.startswith(magic):
            return suffix
    if is_votable(lambda count: beginning[:count]):
        return ".vot"
    suffix = Path(urlsplit(url).path).suffix.lower()
    return suffix if suffix in _KNOWN else ".dat"


def _candidates(stem: str, suffix: str) -> Iterator[str]:
    inner = stem[: -len(suffix)] if stem.lower().endswith(suffix) and stem.lower() != suffix else stem
    yield f"{inner}{suffix}"
    for number in count(2):
        yield f"{inner}-{number}{suffix}"


def new_file(directory: Path, stem: str, suffix: str) -> BinaryIO:
    """
    Open a new file in a directory; whatever is there stays as it is.

    Parameters
    ----------
    directory : Path
        The directory.
    stem, suffix : str
        What it is to be called; a number is added if there is such a file.
    """
    for name in _candidates(stem, suffix):
        try:
            return open(directory / name, "xb")
        except FileExistsError:
            continue
    raise AssertionError("there are numbers enough")


def copy_into(directory: Path, stem: str, source: Path, url: str) -> Path:
    """
    Copy a file to a new one in a directory. Nothing is left of it when that fails.

    Parameters
    ----------
    directory : Path
        Where to.
    stem : str
        What it is to be called.
    source : Path
        What is copied.
    url : str
        Where that came from.

    Returns
    -------
    Path
        The new file.
    """
    with source.open("rb") as file:
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


EPILOG = (
    help_epilog(
        """\
  samp receive             tables, images, spectra, coverages; until ^C
  samp receive -o data --mtype 'table.load.*'
  samp receive --count 1 --timeout 60 --json | jq -r .path
""",
        {
            0: "^C, or as many files as --count says",
            1: "",
            2: "",
            3: "",
            5: "nothing more came within --timeout",
            130: None,
        },
    )
    + """

Of a message without a url, such as coord.pointAt.sky, the parameters are
written as JSON. No file is overwritten: if a name is taken, a number is added.
"""
)

DEFAULT_MTYPES = ("table.load.*", "image.load.*", "spectrum.load.*", "coverage.load.*")


class ReceivedMessage(NamedTuple):
    """A message that has arrived."""

    sender_id: str
    msg_id: str | None
    mtype: str
    params: dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--mtype",
        action="append",
        type=pattern,
        help=f"an MType or a wildcard; may be repeated (default: {', '.join(DEFAULT_MTYPES)})",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where the files go (default: the current directory)",
    )
    parser.add_argument("--count", type=positive_number, metavar="N", help="stop after so many files")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="stop when nothing has come for so long (0: never)",
    )
    parser.add_argument(
        "--name", default="samp receive", help="the name that other programs show (default: %(default)s)"
    )
    add_json_option(parser, "a line of JSON for each file")


def run(options: argparse.Namespace) -> int:
    """Write files until ^C."""
    patterns = options.mtype or DEFAULT_MTYPES
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            Status.FAILED, f"{options.output} cannot be used as a directory: {error.strerror}"
        ) from error
    arrived: SimpleQueue[Any] = SimpleQueue()

    def take(_key: str, sender_id: str, msg_id: str | None, mtype: str, params: Any, _extra: Any) -> None:
        arrived.put(ReceivedMessage(sender_id, msg_id, mtype, params))

    directories: list[NameCache] = []

    def bind(client: SAMPIntegratedClient) -> None:
        directories.append(NameCache(client))
        directories[0].subscribe()
        for wanted in patterns:
            client.bind_receive_message(wanted, take)

    try:
        with connected_client(options.name, "Writes files", callable=True, events=arrived, prepare=bind) as client:
            print(f"samp: waiting for {', '.join(patterns)}, until ^C", file=sys.stderr, flush=True)
            return _write_all(client, arrived, directories[0], options)
    except KeyboardInterrupt:  # the way to end it
        return Status.OK


def _write_all(
    client: SAMPIntegratedClient, arrived: SimpleQueue[Any], directory: NameCache, options: argparse.Namespace
) -> Status:
    written = 0
    while options.count is None or written < options.count:
        try:
            item = get_interruptible(arrived, options.timeout or None)
        except Empty:
            print(f"samp: nothing more came within {options.timeout:g} s", file=sys.stderr)
            return Status.TIMEOUT
        if item == "lost":
            raise SAMPHubError("The hub has gone.")
        written += _save(client, item, directory, options)
    return Status.OK


def _save(client: SAMPIntegratedClient, order: ReceivedMessage, directory: NameCache, options: argparse.Namespace) -> bool:
    """Write one file, answer, and say so; tell whether it worked."""
    started = time.monotonic()
    sender = directory.client_label(order.sender_id)
    try:
        path = _write(order, options.output)
    except (SAMPError, OSError, ValueError) as error:
        _answer(client, order, error_response(error_text(error)))
        print(f"samp: {sanitize(order.mtype)} from {sender}: {sanitize(str(error), 500)}", file=sys.stderr, flush=True)
        return False
    _answer(client, order, ok_response())
    if options.json:
        entry = {
            "path": str(path),
            "bytes": path.stat().st_size,
            "mtype": order.mtype,
            "sender": {"id": order.sender_id, "name": directory.name(order.sender_id)},
            "params": order.params,
            "seconds": round(time.monotonic() - started, 3),
        }
        print_json(entry, one_line=True)
    else:
        print(f"{sanitize(str(path), 1000)}  {sanitize(order.mtype)} from {sender}, {path.stat().st_size} bytes", flush=True)
    return True


def _write(order: ReceivedMessage, directory: Path) -> Path:
    stem = file_stem(order.params, order.mtype)
    url = order.params.get("url")
    if isinstance(url, str) and url.strip():
        with local_copy(url.strip()) as source:
            return copy_into(directory, stem, source, url.strip())
    with new_file(directory, stem, ".json") as file:
        file.write(json.dumps({"mtype": order.mtype, "params": order.params}, indent=2).encode("ascii") + b"\n")
        return Path(file.name)


def _answer(client: SAMPIntegratedClient, order: ReceivedMessage, response: dict[str, Any]) -> None:
    if order.msg_id is None:
        return
    try:
        client.reply(order.msg_id, response)
    except SAMPHubError:
        raise
    except SAMPError as error:  # the sender waits no more
        print(f"samp: the answer was not accepted: {sanitize(str(error))}", file=sys.stderr)
