"""``samp doctor`` finds each problem, and gives advice."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyvo.samp import SAMPHubServer, lockfile
from pyvo.samp.cli import doctor as doctor_checks
from pyvo.samp.lockfile import format_lockfile
from pyvo.samp.testing import RecordingClient

from .conftest import Done

Samp = Callable[..., Done]
MakeHub = Callable[..., SAMPHubServer]

WEB = "--web-port"


@pytest.fixture
def free_port() -> int:
    """A port on which no program listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


#: Variables of the processes of JupyterHub and Jupyter, with the text that the doctor prints about them.
NOTEBOOKS = {
    "JUPYTERHUB_SERVICE_PREFIX": "the server of a JupyterHub",
    "JUPYTERHUB_USER": "the server of a JupyterHub",
    "JPY_PARENT_PID": "a Jupyter server or kernel",
    "JPY_SESSION_NAME": "a Jupyter server or kernel",
}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    """No proxy, no remote login, and the home of the account."""
    for name in ("http_proxy", "HTTP_PROXY", "SSH_CONNECTION", *NOTEBOOKS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor_checks, "_account_home", lambda: isolated)


def write_lockfile(home: Path, url: str, mode: int = 0o600) -> Path:
    path = home / ".samp"
    params = {"samp.secret": "s", "samp.hub.xmlrpc.url": url, "samp.profile.version": "1.3"}
    path.write_bytes(format_lockfile(params))
    path.chmod(mode)
    return path


def problems(done: Done) -> list[str]:
    """Return the texts of the problems, and check that each has advice."""
    found = [entry for entry in json.loads(done.out) if entry["kind"] == "problem"]
    assert all(entry["advice"] for entry in found)
    return [entry["text"] for entry in found]


def test_no_problem(make_hub: MakeHub, samp: Samp) -> None:
    hub = make_hub(web_profile=True)
    with_web = samp("doctor", WEB, hub._web_port)
    assert with_web.status == 0, with_web.out
    assert with_web.out.endswith("\nThere is no problem.\n")
    for text in ("can connect to each other", "The hub at http://", "test message through the hub", "serves web pages"):
        assert text in with_web.out
    assert "No other client is connected" in with_web.out
    assert " problem  " not in with_web.out
    assert hub.params["samp.secret"] not in with_web.out


def test_no_hub(samp: Samp, free_port: int) -> None:
    done = samp("doctor", WEB, free_port)
    assert done.status == 3
    assert "There is no lockfile at ~/.samp: no hub is running." in done.out
    assert "-> Start TOPCAT or Aladin, or run `samp hub`." in done.out
    assert f"no program listens on port {free_port}" in done.out


def test_programs(viewer: Callable[..., RecordingClient], samp: Samp, free_port: int) -> None:
    """The doctor pings clients: one responds, another sends an error."""
    viewer("Alive", "a.b")
    sick = {"samp.status": "samp.error", "samp.error": {"samp.errortxt": "I am sick"}}
    viewer("Sick", "samp.app.ping", response=sick)
    done = samp("doctor", WEB, free_port)
    assert done.status == 1
    assert "     ok  Alive (c1) responds." in done.out
    assert "problem  Sick (c2) cannot be reached: I am sick" in done.out
    assert done.out.endswith("\nThere is a problem.\n")


def test_silent_program(
    viewer: Callable[..., RecordingClient], samp: Samp, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_checks, "CLIENT_TIMEOUT", 0.3)
    viewer("Hung", "samp.app.ping", response=None)
    done = samp("doctor", WEB, free_port, "--json")
    assert done.status == 1
    assert problems(done) == ["Hung (c1) did not respond within 0.3 s."]


# The lockfile and the environment


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_lockfile_that_others_can_read(hub: SAMPHubServer, samp: Samp, isolated: Path, free_port: int) -> None:
    (isolated / ".samp").chmod(0o644)
    done = samp("doctor", WEB, free_port, "--json")
    assert done.status == 1
    assert len(problems(done)) == 1
    assert "~/.samp can be read by other users (mode 644)" in problems(done)[0]


def test_lockfile_of_another_user(
    hub: SAMPHubServer, samp: Samp, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_checks.os, "getuid", lambda: 12345)
    (found,) = problems(samp("doctor", WEB, free_port, "--json"))
    assert "~/.samp belongs to another user" in found


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_lockfile_of_root(samp: Samp, isolated: Path, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a program that was run with sudo gives one finding; other commands advise to run the doctor."""
    path = write_lockfile(isolated, "http://127.0.0.1:1/")

    def denied(*_args: object, **_more: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor_checks.os, "getuid", lambda: 12345)
    monkeypatch.setattr(lockfile.os, "open", denied)
    done = samp("list")
    assert done.status == 3
    assert done.err == "samp: The lockfile ~/.samp cannot be read: Permission denied. Run `samp doctor` for advice.\n"
    done = samp("doctor", WEB, free_port, "--json")
    (found,) = problems(done)
    assert "~/.samp belongs to another user" in found
    monkeypatch.undo()
    assert path.exists()


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_lockfile_that_cannot_be_read(
    samp: Samp, isolated: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lockfile(isolated, "http://127.0.0.1:1/")

    def denied(*_args: object, **_more: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lockfile.os, "open", denied)
    assert problems(samp("doctor", WEB, free_port, "--json")) == [
        "The lockfile ~/.samp cannot be read: Permission denied."
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [("", "is not a SAMP lockfile"), ("samp.secret=x\n", "does not contain"), ("\0" * 100_000, "is too large")],
)
def test_broken_lockfile(samp: Samp, isolated: Path, free_port: int, content: str, text: str) -> None:
    path = isolated / ".samp"
    path.write_text(content)
    path.chmod(0o600)
    done = samp("doctor", WEB, free_port, "--json")
    assert done.status == 1
    (found,) = problems(done)
    assert text in found


def test_links(samp: Samp, make_hub: MakeHub, isolated: Path, tmp_path: Path, free_port: int) -> None:
    """A link is noted; a broken link is a problem."""
    link = isolated / ".samp"
    link.symlink_to(tmp_path / "other-place")
    (found,) = problems(samp("doctor", WEB, free_port, "--json"))
    assert "other-place, which does not exist" in found
    make_hub(lockfile=tmp_path / "other-place")
    done = samp("doctor", WEB, free_port)
    assert done.status == 0
    assert "~/.samp is a symbolic link" in done.out


@pytest.mark.parametrize(
    "setting",
    [
        "nonsense",
        "std-lockurl:file:///no/such/place/lockfile",
        "std-lockurl:http://127.0.0.1:1/x",
        "std-lockurl:ftp://127.0.0.1/x",
    ],
)
def test_samp_hub_variable(samp: Samp, monkeypatch: pytest.MonkeyPatch, free_port: int, setting: str) -> None:
    monkeypatch.setenv("SAMP_HUB", setting)
    done = samp("doctor", WEB, free_port)
    assert done.status == 1
    assert f"SAMP_HUB is set: {setting}" in " ".join(done.out.split())
    assert len(problems(samp("doctor", WEB, free_port, "--json"))) == 1


def test_valid_samp_hub_variable(
    make_hub: MakeHub, samp: Samp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_port: int
) -> None:
    """A valid SAMP_HUB is noted."""
    make_hub(lockfile=tmp_path / "lockfile")
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{(tmp_path / 'lockfile').as_uri()}")
    done = samp("doctor", WEB, free_port)
    assert done.status == 0
    assert "SAMP_HUB is set" in done.out


def test_environment(samp: Samp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_port: int) -> None:
    """Proxies, remote logins and another home directory are noted."""
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("SSH_CONNECTION", "1 2 3 4")
    monkeypatch.setattr(doctor_checks, "_account_home", lambda: tmp_path)
    out = samp("doctor", WEB, free_port).out
    for text in ("go through a proxy", "logged in from another computer", "the home directory of your account is"):
        assert text in " ".join(out.split())
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    assert "proxy" not in samp("doctor", WEB, free_port).out


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook(samp: Samp, monkeypatch: pytest.MonkeyPatch, free_port: int, name: str) -> None:
    """In a Jupyter notebook, the doctor recommends HubRelay, which connects through the page of the notebook."""
    assert "HubRelay" not in samp("doctor", WEB, free_port).out
    monkeypatch.setenv(name, "x")
    out = " ".join(samp("doctor", WEB, free_port).out.split())
    assert NOTEBOOKS[name] in out
    assert "pyvo.samp.jupyter.HubRelay()" in out


@pytest.mark.parametrize("name", ["HOME", "USERPROFILE"])
def test_no_home(samp: Samp, monkeypatch: pytest.MonkeyPatch, free_port: int, name: str) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, "/no/such/home")
    assert "does not exist" in problems(samp("doctor", WEB, free_port, "--json"))[0]


def test_other_hubs(samp: Samp, hub: SAMPHubServer, make_hub: MakeHub, free_port: int) -> None:
    make_hub(mode="multiple")
    done = samp("doctor", WEB, free_port)
    assert done.status == 0
    assert "Another hub runs beside the main one (~/.samp-1/" in " ".join(done.out.split())  # wherever a line ends


def test_loopback_is_blocked(samp: Samp, hub: SAMPHubServer, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a firewall blocks connections to 127.0.0.1, the doctor says so."""

    def blocked(*_args: object, **_more: object) -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(doctor_checks.socket, "create_server", blocked)
    (found, *_more) = problems(samp("doctor", WEB, free_port, "--json"))
    assert "A connection to 127.0.0.1 within this computer failed: Operation not permitted" in found


# The hub


def test_stale_hub(samp: Samp, isolated: Path, free_port: int) -> None:
    path = write_lockfile(isolated, f"http://127.0.0.1:{free_port}/")
    done = samp("doctor", WEB, free_port, "--json")
    assert done.status == 1
    (found,) = problems(done)
    assert "is not running: nothing listens there" in found
    assert path.exists()  # the doctor changes nothing


@contextmanager
def server(response: bytes | None) -> Iterator[int]:
    """A server that sends the same response to every request, or none."""
    open_connections = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_connections.append(connection)
            if response is not None:
                connection.recv(65536)
                connection.sendall(response)
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    for connection in open_connections:
        connection.close()


NOT_FOUND = b"HTTP/1.0 404 Not Found\r\nContent-Length: 2\r\n\r\nno"


@pytest.mark.parametrize("response", [NOT_FOUND, None, b"SSH-2.0-OpenSSH\r\n"])
def test_another_program_at_the_port(
    samp: Samp, isolated: Path, free_port: int, response: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub that hangs, or another program at its port, is a problem."""
    monkeypatch.setattr(doctor_checks, "HUB_TIMEOUT", 0.5)
    with server(response) as port:
        write_lockfile(isolated, f"http://127.0.0.1:{port}/")
        done = samp("doctor", WEB, free_port, "--json")
    assert done.status == 1
    (found,) = problems(done)
    assert "does not respond like a hub" in found


def test_old_secret(samp: Samp, hub: SAMPHubServer, isolated: Path, free_port: int) -> None:
    write_lockfile(isolated, hub.params["samp.hub.xmlrpc.url"])
    done = samp("doctor", WEB, free_port, "--json")
    assert done.status == 1
    assert "The hub rejected the registration" in problems(done)[0]
    (isolated / ".samp").write_bytes(format_lockfile(hub.params))


def test_other_machine(samp: Samp, isolated: Path, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host name of another machine is only resolved by the connection itself (R37)."""

    def refused(*_args: object, **_more: object) -> socket.socket:
        raise ConnectionRefusedError

    monkeypatch.setattr(doctor_checks.socket, "create_connection", refused)
    write_lockfile(isolated, "http://desk.example:1234/")
    done = samp("doctor", WEB, free_port)
    assert "host name or address desk.example" in done.out


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
def test_unknown_host(samp: Samp, isolated: Path, free_port: int, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """If the host name is unknown, the advice does not mention a firewall."""
    connect: Callable[..., socket.socket] = socket.create_connection

    def unknown(address: tuple[str, int], *_args: object, **_more: object) -> socket.socket:
        if address[0] == "127.0.0.1":
            return connect(address, *_args, **_more)
        address[0].encode("idna")
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(doctor_checks.socket, "create_connection", unknown)
    write_lockfile(isolated, f"http://{host}:1234/")
    done = samp("doctor", WEB, free_port, "--json")
    (found,) = problems(done)
    assert f"The host {host}, which ~/.samp names, is not known: " in found
    assert "irewall" not in done.out


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_text_fits_on_the_terminal(samp: Samp, free_port: int, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Lines are wrapped between words to the width of the terminal."""
    monkeypatch.setenv("COLUMNS", str(columns))
    assert max(len(line) for line in samp("doctor", WEB, free_port).out.splitlines()) <= columns


# Web pages


def test_another_program_at_the_port_for_pages(samp: Samp, hub: SAMPHubServer) -> None:
    with server(NOT_FOUND) as port:
        done = samp("doctor", WEB, port, "--json")
    assert done.status == 1
    assert "is used by a program that is not a hub" in problems(done)[0]


def test_a_hub_for_pages_without_a_lockfile(samp: Samp, make_hub: MakeHub, tmp_path: Path) -> None:
    hub = make_hub(lockfile=tmp_path / "lockfile", web_profile=True)
    done = samp("doctor", WEB, hub._web_port, "--json")
    assert done.status == 1
    assert "your lockfile does not lead to a hub" in problems(done)[0]


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ("", "does not allow browsers to connect web pages"),
        ("Access-Control-Allow-Origin: *\r\n", "does not allow browsers to connect pages from the internet"),
    ],
)
def test_hub_without_cors(headers: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that does not allow the preflight requests of browsers is a problem (R44)."""
    monkeypatch.setattr(doctor_checks, "_is_hub", lambda *_: True)
    response = f"HTTP/1.0 200 OK\r\n{headers}Content-Length: 0\r\n\r\n".encode()
    with server(response) as port:
        found = list(doctor_checks._check_preflight(port))
    assert text in found[0].text


def test_another_program_at_ipv6(make_hub: MakeHub) -> None:
    """Another program at the same port of ::1 is noted, because browsers may use ::1 for localhost."""
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("there is no IPv6 here")
    with listener:
        listener.listen()
        found = list(doctor_checks._check_ipv6(listener.getsockname()[1]))
    assert "which browsers may use for localhost" in found[0].text
