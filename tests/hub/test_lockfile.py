# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Lockfiles: their grammar and location, and other things that may be at their path (R33 to R36)."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvo.samp import SAMPHubServer, lockfile, lockfile_helpers, lockfile_writer
from pyvo.samp.errors import SAMPHubError, SAMPValueError
from pyvo.samp.lockfile import format_lockfile, parse_lockfile, read_lockfile
from pyvo.samp.lockfile_writer import remove_lockfile, write_lockfile

GOOD = {"samp.secret": "s3cret", "samp.hub.xmlrpc.url": "http://127.0.0.1:9/", "samp.profile.version": "1.3"}

keys = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters=".-_"), min_size=1)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))


@pytest.fixture
def home(isolated: Path) -> Path:
    return isolated


def put(path: Path, **changes: str | None) -> Path:
    """Write a lockfile with changed values."""
    params = {**GOOD, **{f"samp.{key.replace('_', '.')}": value for key, value in changes.items()}}
    path.write_bytes("".join(f"{key}={value}\n" for key, value in params.items() if value is not None).encode())
    return path


# Grammar


@given(st.dictionaries(keys, values), st.sampled_from([b"\n", b"\r", b"\r\n"]))
def test_a_lockfile_that_was_written_can_be_read(params: dict[str, str], end: bytes) -> None:
    """R34: with any line ending."""
    params.pop("samp.hub.xmlrpc.url", None)
    assert parse_lockfile(format_lockfile(params).replace(b"\n", end)) == params


@given(st.binary())
def test_any_bytes_can_be_parsed(content: bytes) -> None:
    """R34: parsing garbage never raises; the result may be empty or have strange keys."""
    assert all("=" not in key for key in parse_lockfile(content))


def test_comments_and_unknown_keys() -> None:
    """R34: comments are skipped, unknown keys are kept; a value may contain an equals sign."""
    content = b"# a comment=1\r\nsamp.secret=a=b\rx.y=z\n\nno equals sign\n"
    assert parse_lockfile(content) == {"samp.secret": "a=b", "x.y": "z"}


def test_escaped_colons_in_the_url() -> None:
    r"""R34: some hubs write ``http\:``; nothing else is unescaped."""
    params = parse_lockfile(b"samp.hub.xmlrpc.url=http\\://127.0.0.1\\:21/xmlrpc\nsamp.secret=a\\:b\n")
    assert params == {"samp.hub.xmlrpc.url": "http://127.0.0.1:21/xmlrpc", "samp.secret": "a\\:b"}


@pytest.mark.parametrize("text", ["a\nb", "a\rb"])
def test_a_value_is_one_line(text: str) -> None:
    """R34: a value of two lines is rejected, because the second would be a line of the lockfile."""
    with pytest.raises(SAMPValueError, match="hub.label"):
        format_lockfile({**GOOD, "hub.label": text})


# Reading


def test_the_error_without_a_lockfile_says_what_to_do(home: Path) -> None:
    """R33: the error names the path and the commands that start a hub."""
    with pytest.raises(SAMPHubError) as caught:
        lockfile.get_main_running_hub()
    assert str(caught.value) == (
        "No SAMP hub is running (no lockfile at ~/.samp). Start TOPCAT or Aladin, or run `samp hub`."
    )


def test_lockfile_of_a_hub_that_has_ended(home: Path) -> None:
    """R35: the file exists but the hub does not respond, so the error comes at once."""
    put(home / ".samp")
    begin = time.monotonic()
    with pytest.raises(SAMPHubError, match=r"the hub of ~/\.samp does not respond at http://127.0.0.1:9/"):
        lockfile.get_main_running_hub()
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize("key", ["secret", "hub_xmlrpc_url", "profile_version"])
def test_a_missing_key_is_an_error(home: Path, key: str) -> None:
    """R34: the error names the missing key."""
    path = put(home / ".samp", **{key: None})
    with pytest.raises(SAMPHubError, match=f"does not contain samp.{key.replace('_', '.')}. Remove it"):
        read_lockfile(path)


@pytest.mark.parametrize("url", ["ftp://x/", "http://", "nonsense", "http://127.0.0.1:99999/", "http://a b/"])
def test_an_invalid_hub_url_is_rejected(home: Path, url: str) -> None:
    with pytest.raises(SAMPHubError, match="does not contain a valid hub URL"):
        read_lockfile(put(home / ".samp", hub_xmlrpc_url=url))


def make_directory(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 2**20)


def make_garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 10)


def make_empty(path: Path) -> None:
    path.touch()


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


OBSTACLES = [make_directory, make_fifo, make_huge, make_garbage, make_empty, make_loop, make_dangling, make_socket]


@pytest.mark.parametrize("make", OBSTACLES)
def test_a_path_without_a_lockfile_is_an_error_at_once(home: Path, make: Callable[[Path], None]) -> None:
    """
    R35: reading ends with an error that names the path, also for a directory, a pipe, a huge file, garbage or a
    link.
    """
    make(home / ".samp")
    begin = time.monotonic()
    with pytest.raises(SAMPHubError, match=r"~/\.samp"):
        lockfile.get_main_running_hub()
    assert time.monotonic() - begin < 1


def test_link_to_a_lockfile_is_read(home: Path) -> None:
    put(home / "elsewhere")
    (home / ".samp").symlink_to(home / "elsewhere")
    assert read_lockfile(home / ".samp") == GOOD


# SAMP_HUB


@pytest.mark.parametrize("form", ["file://{}", "file:{}", "file://localhost{}", "file://localhost/{}", "FILE://{}"])
def test_samp_hub_names_a_file(home: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """R33: every form of file URL that programs use is accepted, also with percent-escapes."""
    path = put(home / "a b%ü#?.lock")
    quoted = path.as_uri().removeprefix("file://")
    monkeypatch.setenv("SAMP_HUB", "std-lockurl:" + form.format(quoted))
    assert lockfile.lockfile_source() == str(path)
    assert read_lockfile(lockfile.lockfile_source()) == GOOD
    assert lockfile_writer.default_lockfile() == path


@pytest.mark.parametrize("value", ["web-appname:tester", "/some/path", "http://127.0.0.1/"])
def test_samp_hub_without_lockurl(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """R33: a value that names no lockfile is an error; it is not ignored."""
    monkeypatch.setenv("SAMP_HUB", value)
    with pytest.raises(SAMPHubError, match="SAMP_HUB is .* but must begin with 'std-lockurl:'"):
        lockfile.get_main_running_hub()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "HTTPX://127.0.0.1/", "jar:file:/x!/y"])
def test_samp_hub_with_another_scheme_is_an_error(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Neither a client nor a hub uses such a URL as a path."""
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{url}")
    for find in (lockfile.get_main_running_hub, lockfile_writer.default_lockfile):
        with pytest.raises(SAMPHubError, match="only be read from a file: or http: URL"):
            find()


def test_samp_hub_with_a_file_of_another_machine_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMP_HUB", "std-lockurl:file://elsewhere/x")
    with pytest.raises(SAMPHubError, match="on another machine, elsewhere"):
        lockfile.get_main_running_hub()


def test_empty_samp_hub_counts_as_unset(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMP_HUB", "")
    assert lockfile_writer.default_lockfile() == home / ".samp"


@contextmanager
def web_server(*pieces: bytes, gap: float = 0.0) -> Iterator[str]:
    """Run a server that sends these pieces as its response to one request, with a pause after each."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for piece in pieces:
                    try:
                        connection.sendall(piece)
                    except OSError:
                        return
                    if stop.wait(gap):
                        return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/some/lock?x=1"
        finally:
            stop.set()
            thread.join()


def page(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.0 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def test_samp_hub_names_a_web_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """R33: a client can read the lockfile by HTTP; a hub cannot write it there."""
    with web_server(page(format_lockfile(GOOD))) as url:
        monkeypatch.setenv("SAMP_HUB", "std-lockurl:" + url)
        assert read_lockfile(lockfile.lockfile_source()) == GOOD
        with pytest.raises(SAMPHubError, match="a hub cannot write"):
            lockfile_writer.default_lockfile()


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (page(b"", b"302 Found\r\nLocation: http://127.0.0.1:1/"), "HTTP status 302"),
        (page(b"gone", b"404 Not Found"), "HTTP status 404"),
        (page(b"x" * 70000), "sent an invalid response"),
        (b"220 ftp.example.org\r\n", "sent an invalid response"),
        (b"", "sent an invalid response"),
    ],
)
def test_a_web_page_that_is_not_a_lockfile(response: bytes, reason: str) -> None:
    """R33: a redirect is not followed, and a response that is too large is not read."""
    message = f"which SAMP_HUB names, cannot be read: .*{reason}.*samp doctor"
    with web_server(response) as url, pytest.raises(SAMPHubError, match=message):
        read_lockfile(url)


def test_the_timeout_is_for_the_whole_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """R33: a server that sends one byte at a time does not extend the time-out."""
    monkeypatch.setattr(lockfile, "FETCH_TIMEOUT", 0.5)
    begin = time.monotonic()
    pieces = [b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n", *[b"x"] * 100]
    with web_server(*pieces, gap=0.1) as url, pytest.raises(SAMPHubError, match="did not respond within 0.5 s"):
        read_lockfile(url)
    assert time.monotonic() - begin < 2


def test_a_web_server_that_does_not_run_is_an_error() -> None:
    with pytest.raises(SAMPHubError, match="127.0.0.1:9 cannot be reached"):
        read_lockfile("http://127.0.0.1:9/")


# Writing and removing


@pytest.mark.parametrize("make", [m for m in OBSTACLES if m is not make_directory])
def test_a_file_that_names_no_running_hub_is_replaced(home: Path, make: Callable[[Path], None]) -> None:
    """R35, R36: the new file can be read by the user only, and no other file is left."""
    make(home / ".samp")
    write_lockfile(home / ".samp", GOOD)
    status = (home / ".samp").lstat()
    assert stat.S_ISREG(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert read_lockfile(home / ".samp") == GOOD
    assert [path.name for path in home.iterdir()] == [".samp"]


def test_directory_is_not_replaced(home: Path) -> None:
    make_directory(home / ".samp")
    with pytest.raises(SAMPHubError, match=r"The lockfile ~/\.samp cannot be written: Is a directory"):
        write_lockfile(home / ".samp", GOOD)
    assert [path.name for path in home.iterdir()] == [".samp"]


@pytest.mark.parametrize("name", [".samp", ".samp.new", ".samp.lock"])
def test_links_are_never_written_through(home: Path, name: str) -> None:
    """R36: a hub does not write to the target of a link at the path of the lockfile or of a temporary file."""
    precious = home / "precious"
    precious.write_text("data")
    (home / name).symlink_to(precious)
    expected = pytest.raises(SAMPHubError, match="cannot be written") if name == ".samp.lock" else nullcontext()
    with expected:
        write_lockfile(home / ".samp", GOOD)
    assert precious.read_text() == "data"


def test_files_left_by_a_crash_do_not_matter(home: Path) -> None:
    """R36: a hub that crashed while it started has left both temporary files."""
    for name in (".samp.lock", ".samp.new"):
        (home / name).write_text("rubbish")
    write_lockfile(home / ".samp", GOOD)
    assert [path.name for path in home.iterdir()] == [".samp"]


@pytest.fixture
def no_superuser() -> Iterator[None]:
    """Become a user without the superuser's permissions."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has other permissions")
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(65534)
    except OSError as error:
        pytest.skip(f"the superuser cannot become another user here: {error}")
    try:
        yield
    finally:
        os.seteuid(0)


def test_read_only_home(home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A hub that cannot write to its home does not run, leaves nothing behind, and says what to do."""
    monkeypatch.chdir(home)  # another user may not have access by the path
    home.chmod(0o555)
    request.getfixturevalue("no_superuser")
    hub = SAMPHubServer(web_profile=False, lockfile=".samp")
    with pytest.raises(SAMPHubError, match=r"\.samp cannot be written: Permission denied. Without it, programs"):
        hub.start()
    assert not hub.is_running
    assert list(Path().iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the hub leaves no partial file and does not change an old lockfile."""
    put(home / ".samp", secret="old")
    really_open = os.open

    def open_full(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = really_open(path, flags, mode)
        if str(path).endswith(".new"):
            full = really_open("/dev/full", os.O_WRONLY)
            os.dup2(full, descriptor)
            os.close(full)
        return descriptor

    monkeypatch.setattr(lockfile_writer.os, "open", open_full)
    with pytest.raises(SAMPHubError, match="cannot be written: No space left on device"):
        write_lockfile(home / ".samp", GOOD)
    assert [path.name for path in home.iterdir()] == [".samp"]
    assert read_lockfile(home / ".samp")["samp.secret"] == "old"


def test_another_hub_that_is_starting(home: Path) -> None:
    """R36: a second hub does not wait for the first, but fails."""
    with (
        lockfile_writer._lockfile_guard(home / ".samp"),
        pytest.raises(SAMPHubError, match=r"starting at this moment \(it holds ~/\.samp\.lock\)"),
    ):
        write_lockfile(home / ".samp", GOOD)
    write_lockfile(home / ".samp", GOOD)


def test_a_lock_on_a_removed_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R36: if the previous holder removes the file while the hub acquires the lock, the hub acquires it again."""
    guard = home / ".samp.lock"
    really_lock = lockfile_writer.fcntl.flock
    locked = []

    def lock(descriptor: int, operation: int) -> None:
        if not locked:
            guard.unlink()
        locked.append(os.fstat(descriptor).st_ino)
        really_lock(descriptor, operation)

    monkeypatch.setattr(lockfile_writer.fcntl, "flock", lock)
    with lockfile_writer._lockfile_guard(home / ".samp"):
        assert len(locked) == 2
        assert guard.stat().st_ino == locked[-1]


@pytest.mark.parametrize(("number", "starts"), [(errno.ENOLCK, True), (errno.EOPNOTSUPP, True), (errno.EIO, False)])
def test_file_system_without_locks(home: Path, monkeypatch: pytest.MonkeyPatch, number: int, starts: bool) -> None:
    """R36: a hub starts in a home on a network file system without locks, but not on a disk with errors."""

    def lock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lockfile_writer.fcntl, "flock", lock)
    expected = nullcontext() if starts else pytest.raises(SAMPHubError, match="cannot be written: Input/output error")
    with expected:
        write_lockfile(home / ".samp", GOOD)
    assert [path.name for path in home.iterdir()] == ([".samp"] if starts else [".samp.lock"])


def test_a_hub_removes_only_its_own_lockfile(home: Path) -> None:
    """R35: a hub does not remove another hub's lockfile; a missing file is not an error."""
    write_lockfile(home / ".samp", GOOD)
    remove_lockfile(home / ".samp", {**GOOD, "samp.secret": "another"})
    remove_lockfile(home / ".samp", {**GOOD, "samp.hub.xmlrpc.url": "http://127.0.0.1:10/"})
    assert (home / ".samp").exists()
    remove_lockfile(home / ".samp", GOOD)
    assert not (home / ".samp").exists()
    remove_lockfile(home / ".samp", GOOD)


def test_lockfiles_of_multiple_hubs(home: Path) -> None:
    """The directory of the lockfiles can be read by the user only; an error names a file at its path."""
    path = lockfile_writer.multi_hub_lockfile("x")
    assert path.parent == home / ".samp-1"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.parent.rmdir()
    (home / ".samp-1").touch()
    with pytest.raises(SAMPHubError, match=r"~/\.samp-1 cannot be created"):
        lockfile_writer.multi_hub_lockfile("x")


# A port that is in use, but not by a hub


@contextmanager
def listener(response: bytes | None) -> Iterator[str]:
    """Run a program that sends the same response to each request, or one that accepts connections and is silent."""
    if response is None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            yield f"http://127.0.0.1:{silent.getsockname()[1]}/"
        return
    with web_server(page(response)) as url:
        yield url


FAULT = b"""<?xml version="1.0"?><methodResponse><fault><value><struct>
<member><name>faultCode</name><value><int>1</int></value></member>
<member><name>faultString</name><value><string>no such method</string></value></member>
</struct></value></fault></methodResponse>"""


@pytest.mark.parametrize("response", [None, FAULT, b"<html>hello</html>", b""])
def test_another_program_uses_the_port(home: Path, monkeypatch: pytest.MonkeyPatch, response: bytes | None) -> None:
    """R35: a program on this port that is not a hub, or does not respond, does not keep a hub from starting."""
    monkeypatch.setattr(lockfile.ping_hub, "__defaults__", (0.3,))
    with listener(response) as url:
        put(home / ".samp", hub_xmlrpc_url=url)
        write_lockfile(home / ".samp", GOOD)
    assert read_lockfile(home / ".samp") == GOOD


# Compatibility


def test_lockfile_helpers(home: Path, make_hub: Callable[..., object]) -> None:
    path = lockfile_helpers.create_lock_file(hub_params=GOOD)
    assert path == str(home / ".samp")
    assert lockfile_helpers.read_lockfile(path) == GOOD
    assert lockfile_helpers.check_running_hub(path) == (False, GOOD)
    assert lockfile_helpers.check_running_hub(home / "nothing") == (False, {})
    beside = lockfile_helpers.create_lock_file(mode="multiple", hub_id="h1", hub_params=GOOD)
    assert beside == str(home / ".samp-1" / "samp-hub-h1")
    named = lockfile_helpers.create_lock_file(home / "named", hub_params=GOOD)
    assert named == str(home / "named")
    hub = make_hub()
    assert lockfile_helpers.get_main_running_hub() == hub.params
    assert lockfile_helpers.check_running_hub(home / ".samp") == (True, hub.params)
