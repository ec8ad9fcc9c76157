"""Help, exit statuses, pipes, signals and sanitized text, which all commands have in common."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient, SAMPWarning
from pyvo.samp.cli import list as list_command
from pyvo.samp.cli.main import COMMANDS
from pyvo.samp.cli.output import MEANINGS, Status, Style, column_widths, pad_or_truncate, sanitize
from pyvo.samp.cli.point import parse_position
from pyvo.samp.testing import RecordingClient
from tests.conftest import ROOT
from tests.process.programs import Program

from .conftest import Done

Samp = Callable[..., Done]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(samp: Samp, command: str) -> None:
    """Each command has help with an example of itself and its exit statuses."""
    done = samp(command, "--help")
    assert done.status == 0
    assert f"usage: samp {command}" in done.out
    examples = done.out.partition("examples:\n")[2]
    assert f"  samp {command}" in examples
    statuses = re.findall(r"^  (\d+) +\S", examples.partition("exit status:\n")[2], re.MULTILINE)
    assert statuses == sorted(statuses, key=int)
    assert {"0", "2", "141"} <= set(statuses)
    assert ("130" in statuses) != (command in {"hub", "snoop", "receive", "bridge"})  # ^C is the normal end of these


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_fits_on_a_terminal(samp: Samp, command: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of the help is longer than 80 characters, so that no word is broken."""
    monkeypatch.setenv("COLUMNS", "80")
    done = samp(*([command] if command else []), "--help")
    assert [line for line in done.out.splitlines() if len(line) > 80] == []


def test_table_of_exit_statuses() -> None:
    """The documentation lists all exit statuses, with the texts of the help."""
    page = (ROOT / "docs" / "reference" / "command-line.rst").read_text()
    for status in Status:
        assert re.search(rf"^{int(status)} +{re.escape(MEANINGS[status])}$", page, re.MULTILINE), status


def test_overview(samp: Samp) -> None:
    done = samp("--help")
    assert done.status == 0
    for name, (_module, text) in COMMANDS.items():
        assert re.search(rf"^    {name}\s", done.out, re.MULTILINE)
        assert text in " ".join(done.out.split())


def test_version(samp: Samp) -> None:
    done = samp("--version")
    assert (done.status, done.out.split()[0]) == (0, "samp")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["list", "--mtype", "a.*.b"],
        ["notify"],
        ["notify", "a.*"],
        ["notify", "a.b", "novalue"],
        ["notify", "a.b", "rows:=[1,"],
        ["notify", "a.b", "rows:=[null]"],
        ["notify", "a.b", "--to", "x", "--all"],
        ["call", "a.b", "--timeout", "-1"],
        ["call", "a.b", "--timeout", "nan"],
        ["snoop", "a.*.b"],
        ["snoop", "--count", "0"],
        ["snoop", "--count", "-1"],
        ["receive", "--count", "0"],
        ["receive", "--count", "few"],
        ["receive", "--mtype", "a.*.b"],
        ["send", "x.fits", "--mtype", "a.*"],
        ["doctor", "--web-port", "70000"],
        ["hub", "-t", "-5"],
        ["hub", "-t", "nan"],
        ["hub", "-c", "-3"],
        ["hub", "-c", "soon"],
        ["hub", "--web-mtypes", "a.*.b"],
        ["hub", "--web-mtypes"],
        ["point", "83.6"],
        ["point", "400", "2"],
        ["hub", "--web-consent", "perhaps"],
        ["hub", "--web-consent", "allow-origin"],
        ["hub", "--web-consent", "deny", "https://example.org"],
        ["hub", "--web-consent", "allow-origin", "example.org"],
        ["hub", "--web-consent", "allow-origin", "null"],
        ["hub", "--web-consent", "allow-origin", "https://*.org"],
        ["hub", "--web-consent", "allow-origin", "https://example.org/path"],
    ],
)
def test_invalid_command_lines(samp: Samp, arguments: list[str]) -> None:
    done = samp(*arguments)
    assert done.status == 2
    assert "usage: samp" in done.err
    assert "Traceback" not in done.err
    assert not re.search(r"invalid \w+ value", done.err)  # the default text of argparse contains the name of a function


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["call"], "the following arguments are required: MTYPE\n"),
        (["call", "bad mtype"], "argument MTYPE: 'bad mtype' is not an MType\n"),
        (["snoop", "x.*.y"], "argument PATTERN: 'x.*.y' is neither an MType nor a wildcard such as '*' or 'table.*'\n"),
        (["list", "--mtype", ""], "argument --mtype: '' is neither an MType nor a wildcard"),
        (["hub", "-t", "nan"], "argument -t/--timeout: 'nan' is not a number of seconds, 0 or more\n"),
        (["receive", "--count", "0"], "argument --count: '0' is not a whole number, 1 or more\n"),
        (["hub", "--web-consent", "perhaps"], "argument --web-consent: 'perhaps' is neither one of tk, terminal, "),
        (["hub", "--web-consent", "https://example.org"], "--web-consent must begin with one of tk, terminal, "),
        (["hub", "--web-consent", "allow-origin"], "--web-consent allow-origin needs at least one ORIGIN\n"),
        (["hub", "--web-consent", "deny", "https://example.org"], "--web-consent deny takes no ORIGIN\n"),
        (["hub", "--web-consent", "deny", "tk"], "--web-consent deny takes no ORIGIN\n"),
        (["hub", "--web-consent", "allow-origin", "null"], "argument --web-consent: 'null' is neither one of "),
        (["doctor", "--web-port", "x"], "argument --web-port: A port must be a number from 0 to 65535, not 'x'\n"),
    ],
)
def test_error_texts(samp: Samp, arguments: list[str], text: str) -> None:
    assert text in samp(*arguments).err


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["notify", "a.b"], ["call", "a.b"], ["snoop"], ["point", "1", "2"], ["send", "x.fits"], ["receive"]],
)
def test_no_hub(samp: Samp, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a hub, each command prints the same error and exits with status 3."""
    monkeypatch.chdir(tmp_path)
    done = samp(*arguments)
    assert done.status == 3
    assert done.out == ""
    advice = "Start TOPCAT or Aladin, or run `samp hub`."
    assert done.err == f"samp: No SAMP hub is running (no lockfile at ~/.samp). {advice}\n"


def test_list_imports_few_modules(hub: SAMPHubServer, python_environment: dict[str, str]) -> None:
    """`samp list` does not import modules that only `samp send` needs."""
    script = """
import sys
from pyvo.samp.cli import main
main(["list"])
heavy = {"astropy.table", "astropy.io", "astropy.io.fits", "astropy.io.votable", "astropy.coordinates", "astropy.units"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert "pyvo.samp.hub" not in sys.modules and "pyvo.samp.cli.send" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], env=python_environment, check=True, timeout=30)


def test_closed_pipe(viewer: Callable[..., RecordingClient], python_environment: dict[str, str]) -> None:
    """``samp list | head -1`` prints no traceback, and exits with the status that a shell expects."""
    viewer("one", "a.b")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "pyvo.samp", "list", "-v"],
            env={**python_environment},
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(os.name == "nt", reason="descriptors of POSIX")
@pytest.mark.parametrize("closed", [[1], [2], [0, 1, 2]])
@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["list"], 0),
        (["call", "samp.app.ping"], 0),
        (["snoop", "--count", "1"], 0),
        (["list", "--help"], 0),
        (["notify", "x.y"], 4),
        (["notify"], 2),
    ],
)
def test_closed_streams(
    viewer: Callable[..., RecordingClient],
    python_environment: dict[str, str],
    command: list[str],
    status: int,
    closed: list[int],
) -> None:
    """With closed streams (``samp list >&-``) a command works normally, and prints to the open streams."""
    one = viewer("one", "a.b")
    script = f"import os, sys; [os.close(n) for n in {closed}]; os.execv(sys.executable, sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", script, sys.executable, "-W", "error", "-m", "pyvo.samp", *command],
        env=python_environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            if command[0] == "snoop":
                one.wait_for("samp snoop", 20, "a.b")
                one.notify_all({"samp.mtype": "a.b", "samp.params": {}})
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == status
    assert "Traceback" not in err
    assert not out or 1 not in closed
    assert bool(out) == (1 not in closed and status == 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_full_disk(viewer: Callable[..., RecordingClient], python_environment: dict[str, str]) -> None:
    """If the output cannot be written, the command fails, and the interpreter prints no second error."""
    viewer("one", "a.b")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pyvo.samp", "list"],
            env={**python_environment, "PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "samp: [Errno 28] No space left on device\n")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("command", "number", "status"),
    [
        (["snoop"], signal.SIGINT, 0),
        (["snoop"], signal.SIGTERM, 143),
        (["receive"], signal.SIGINT, 0),
        (["receive"], signal.SIGTERM, 143),
    ],
)
def test_end_by_signal(
    samp_client: Callable[..., RecordingClient],
    start: Callable[..., Program],
    command: list[str],
    number: signal.Signals,
    status: int,
) -> None:
    """^C is the normal end. After any signal the client is unregistered, and there is no traceback."""
    events = samp_client("events", ["samp.hub.event.unregister"])
    program = start(*command)
    program.process.send_signal(number)
    assert program.wait() == status
    assert "Traceback" not in program.output
    events.assert_received("samp.hub.event.unregister")
    assert events.get_registered_clients() == ["hub"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_interrupted_call(viewer: Callable[..., RecordingClient], python_environment: dict[str, str]) -> None:
    """^C while a call waits for its response has an exit status of its own."""
    silent = viewer("silent", "a.b", response=None)
    with Program(["-m", "pyvo.samp", "call", "a.b", "--timeout", "0"], python_environment) as program:
        silent.assert_received("a.b", within=20)
        program.process.send_signal(signal.SIGINT)
        assert program.wait() == 130
        assert program.output == ""


# Sanitized text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b]0;title\x07\x1b[31mred", "?]0;title??[31mred"),
        ("\x9b31m", "?31m"),
        ("two\nlines\ttab\rback", "two lines tab back"),
        ("\u202eesrever\u2066", "?esrever?"),
        ("caf\u00e9 \u661f", "caf\u00e9 \u661f"),
        (["a", {"b": "\x1b"}], '["a", {"b": "\\u001b"}]'),
        ("x" * 300, "x" * 197 + "..."),
    ],
)
def test_sanitize(text: object, shown: str) -> None:
    """No control character gets through."""
    assert sanitize(text) == shown


def test_hostile_client(hub: SAMPHubServer, samp: Samp) -> None:
    """Escape sequences of another client (C1 characters, which XML allows) are removed from all output."""
    escapes = "\x9b2J\x9b31m\u202e"
    client = SAMPIntegratedClient("Evil")
    with warnings.catch_warnings(), client:
        warnings.simplefilter("ignore", SAMPWarning)  # the warning says that hubs in Java reject such text
        client.declare_metadata({"samp.name": f"evil{escapes}", f"key{escapes}": escapes})
        client.bind_receive_message(
            "a.b", lambda key, sender, msg_id, *_: client.ereply(msg_id, "samp.ok", {f"k{escapes}": f"v{escapes}"})
        )
        outputs = [samp("list"), samp("list", "-v"), samp("call", "a.b"), samp("call", "a.b", "--json")]
    for done in outputs:
        assert done.status == 0
        assert "evil" in done.out
        assert not set(done.out + done.err) & set("\x1b\x9b\u202e\x07")


def test_log_is_sanitized(samp: Samp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log records are sanitized line by line, so that tracebacks keep their indentation."""

    def run(_options: object) -> int:
        try:
            raise ValueError("bad \x9b31m value")
        except ValueError:
            logging.getLogger("pyvo.samp.client").exception("Something \x1b[31m failed")
        return 0

    command = list_command.COMMANDS["list"]
    monkeypatch.setitem(list_command.COMMANDS, "list", command._replace(run=run))
    lines = samp("list").err.splitlines()
    assert lines[:2] == ["samp: Something ?[31m failed", "Traceback (most recent call last):"]
    assert lines[2].startswith('  File "')
    assert lines[-1] == "ValueError: bad ?31m value"
    assert samp("list").err.count("Traceback") == 1


def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours are used on request, and on a terminal unless NO_COLOR is set."""
    assert Style("always")("x", "red", "bold") == "\x1b[31;1mx\x1b[0m"
    assert Style("never")("x", "red") == "x"
    assert Style("auto")("x", "red") == "x"  # standard output is not a terminal here

    class Terminal:
        @staticmethod
        def isatty() -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Style("auto", Terminal()).on  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Style("auto", Terminal()).on  # type: ignore[arg-type]


def test_columns() -> None:
    """Wide characters take two columns."""
    assert pad_or_truncate("abc", 5) == "abc  "
    assert pad_or_truncate("abcdef", 4) == "abc…"
    assert pad_or_truncate("星星星", 4) == "星… "
    assert column_widths([["a", "星星"], ["bcd", "x"]]) == [3, 4]


# Positions


@pytest.mark.parametrize(
    "text",
    [
        "83.633 22.014",
        "83.633, -22.014",
        "0 -0.5",
        "05:34:31.94 +22:00:52.2",
        "05:34:31.94 -00:00:52.2",
        "5h34m31.94s 22d0m52.2s",
        "5h34m31.94s -22d00m52s",
        "05 34 31.94 +22 00 52.2",
        "05 34 31.94 -22 00 52.2",
        "83d38m0s -5d30m0s",
    ],
)
def test_positions(text: str) -> None:
    """Positions are parsed as by astropy."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    sexagesimal = ":" in text or len(text.split()) > 2 or "h" in text
    expected = SkyCoord(text.replace(",", ""), unit=(u.hourangle if sexagesimal else u.deg, u.deg))
    for words in (text.split(), [text]):
        ra, dec = parse_position(words)
        assert ra == pytest.approx(expected.ra.deg, abs=1e-9)
        assert dec == pytest.approx(expected.dec.deg, abs=1e-9)


@pytest.mark.parametrize(
    "text", ["", "1", "1 2 3", "a b", "1 91", "-1 0", "25:00:00 1", "5:60:00 1", "1e400 1", "nan 1"]
)
def test_invalid_positions(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        parse_position(text.split())
