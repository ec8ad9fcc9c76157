# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Shell completion: the candidates, and tests with real shells, in which the TAB key is pressed."""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from pyvo.samp import SAMPHubServer
from pyvo.samp.cli.completion import candidates
from pyvo.samp.cli.main import COMMANDS
from pyvo.samp.testing import RecordingClient
from tests.conftest import ROOT

pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")

from .conftest import Done  # noqa: E402

Samp = Callable[..., Done]
Make = Callable[..., RecordingClient]


def texts(*words: str) -> list[str]:
    return [candidate.text for candidate in candidates(words)]


# Candidates


def test_commands() -> None:
    assert texts("") == [*COMMANDS, "--help", "--version"]
    assert texts("sn") == ["snoop"]
    assert texts("--v") == ["--version"]
    assert texts("nonsense", "") == []
    assert dict(candidates(["snoop"]))["snoop"] == "Show messages as they arrive, and record them."


def test_options() -> None:
    assert {"--to", "--all", "--timeout", "--json", "--color", "--help"} <= set(texts("call", "-"))
    assert texts("call", "--ti") == ["--timeout"]
    assert dict(candidates(["call", "--ti"])) == {
        "--timeout": "how long to wait for responses (default: 60; 0: no limit)"
    }
    assert texts("call", "--timeout", "") == []
    assert texts("list", "--color", "a") == ["auto", "always"]
    assert texts("list", "--color=a") == ["--color=auto", "--color=always"]
    assert texts("list", "--color", "=", "n") == ["never"]  # bash passes "=" as a word
    assert texts("hub", "--web-consent", "t") == ["tk", "terminal"]
    assert texts("demo", "--hub", "=") == ["own", "running"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_offered(samp: Samp, command: str) -> None:
    """The candidates are the options in the help of a command."""
    shown = {word.strip(",") for word in samp(command, "--help").out.split() if word.startswith("--")}
    offered = set(texts(command, "-"))
    assert offered
    assert {option for option in offered if option.startswith("--")} - {"--help"} <= {
        word.rstrip("]).,`'") for word in shown | {"--help"}
    }


def test_files() -> None:
    assert texts("send", "") == [":files"]
    assert texts("send", "any") == [":files"]
    assert texts("replay", "x") == [":files"]
    assert texts("snoop", "--record", "x") == [":files"]
    assert texts("receive", "-o", "x") == [":dirs"]


def test_clients_and_mtypes(samp_client: Make) -> None:
    """Clients have unique simple names or else ids as candidates; MTypes are those of clients and well-known ones."""
    samp_client("Sky chart", ["x-my.unusual", "x-my.all.*", "samp.hub.event.*"])
    for _ in range(2):
        samp_client("Twin", [])
    with pytest.warns(Warning, match="ASCII"):
        samp_client("$(rm *)\u202e", ["b.c"])
    samp_client("", [])
    assert dict(candidates(["call", "a.b", "--to", ""])) == {
        "Sky chart": "c1", "c2": "Twin", "c3": "Twin", "c4": "", "c5": ""
    }  # fmt: skip
    assert texts("call", "a.b", "--to", "sky") == ["Sky chart"]
    assert texts("call", "a.b", "--to", '"Sky ch') == ["Sky chart"]
    assert texts("call", "a.b", "--to", "Sky\\ ch") == ["Sky chart"]
    assert texts("call", "--to", "Sky chart", "x-") == ["x-my.unusual"]
    assert texts("snoop", "x-") == ["x-my.all.*", "x-my.unusual"]
    assert "table.load.votable" in texts("notify", "table")
    assert "samp.hub.event.register" not in texts("notify", "")
    assert texts("notify", "a.b", "") == []  # KEY=VALUE


def test_no_hub(samp: Samp, isolated: Path) -> None:
    """Without a hub, completion prints no error and offers the well-known MTypes."""
    assert samp("_complete", "call", "--to", "") == (0, "", "")
    assert "coord.pointAt.sky\n" in samp("_complete", "call", "coord").out
    assert samp("_complete") == samp("_complete", "")


def test_a_hub_that_hangs(isolated: Path, python_environment: dict[str, str], start_samp: Path) -> None:
    """The completion ends after a time limit if the hub does not respond."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        (isolated / ".samp").write_text(f"samp.secret=x\nsamp.hub.xmlrpc.url={url}\nsamp.profile.version=1.3\n")
        start = time.monotonic()
        with Shell(["bash", "--norc", "--noprofile"], start_samp) as shell:
            shell.run("source <(samp completion bash)")
            assert shell.complete("samp call --to sk") == ["call", "--to", "sk"]
        assert time.monotonic() - start < 20


def test_scripts_need_a_shell(samp: Samp) -> None:
    assert samp("completion").status == 2
    assert samp("completion", "tcsh").status == 2


# Real shells


class Shell:
    """
    An interactive shell on a terminal of its own.

    Its command ``samp`` completes like the real one. Otherwise it prints its arguments, to show how the shell has
    completed the line.
    """

    def __init__(self, command: list[str], directory: Path) -> None:
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed (tests/interop/install does it)")
        path = f"{directory / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "TERM": "vt100", "PS1": "> "}
        environment["TMPDIR"] = str(directory)  # for fish
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            os.execvpe(command[0], [*command, "-i"], environment)
        self.output = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)

    def write(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def read_until(self, text: str, timeout: float = 40.0) -> str:
        """Return the output up to a text, and drop it."""
        deadline = time.monotonic() + timeout
        while text not in self.output:
            ready, _, _ = select.select([self.terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {text!r} in {self.output!r}"
            self.output += os.read(self.terminal, 65536).decode(errors="replace")
        before, _, self.output = self.output.partition(text)
        return before

    def run(self, line: str) -> None:
        """Run a command."""
        self.write(f"{line}; samp done\r")
        self.read_until('ARGS:["done"]')

    def complete(self, line: str) -> list[str]:
        """Type a line, press TAB and then return; return the arguments that ``samp`` gets."""
        self.write(f"{line}\t\r")
        self.read_until("ARGS:")
        arguments: list[str] = json.loads(self.read_until("]") + "]")
        return arguments


@pytest.fixture
def start_samp(tmp_path: Path) -> Path:
    """A directory with some files, and the command ``samp`` in ``bin``."""
    script = tmp_path / "bin" / "samp"
    script.parent.mkdir()
    python = shlex.quote(sys.executable)
    script.write_text(
        "#!/bin/sh\n"
        f'case $1 in _complete|completion) exec {python} -m pyvo.samp "$@" ;; esac\n'
        f'{python} -c \'import json, sys; print("ARGS:" + json.dumps(sys.argv[1:]))\' "$@"\n'
    )
    script.chmod(0o755)
    (tmp_path / "data-file.fits").touch()
    (tmp_path / "subdirectory").mkdir()
    return tmp_path


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile"], "source <(samp completion bash)"),
    "zsh": (["zsh", "-f"], "autoload -Uz compinit && compinit -u -D; source <(samp completion zsh)"),
    "fish": (["fish", "--no-config"], "samp completion fish | source"),
}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, start_samp: Path) -> Iterator[Shell]:
    command, setup = SHELLS[request.param]
    with Shell(command, start_samp) as shell:
        shell.run(setup)
        yield shell


def test_tab(shell: Shell, samp_client: Make) -> None:
    """Commands, options, names, MTypes, files and directories, as the shell passes them to the program."""
    samp_client("Sky chart", ["x-my.unusual"])
    for line, arguments in [
        ("samp sno", ["snoop"]),
        ("samp send --time", ["send", "--timeout"]),
        ("samp demo --hub ru", ["demo", "--hub", "running"]),
        ("samp call --to Sky", ["call", "--to", "Sky chart"]),
        ("samp call --to 'Sky ch", ["call", "--to", "Sky chart"]),
        ('samp call --to "Sky', ["call", "--to", "Sky chart"]),
        ("samp call --to Sky\\ ", ["call", "--to", "Sky chart"]),
        ("samp call --to=Sky", ["call", "--to=Sky chart"]),
        ("samp notify x-my", ["notify", "x-my.unusual"]),
        ("samp send data", ["send", "data-file.fits"]),
        ("samp receive -o sub", ["receive", "-o", "subdirectory"]),
    ]:
        # zsh removes the slash of a directory at the end of the line
        assert [word.rstrip("/") for word in shell.complete(line)] == arguments, line


def test_tab_without_a_hub(shell: Shell, isolated: Path) -> None:
    """Without a hub, TAB changes nothing and prints nothing."""
    shell.output = ""
    shell.write("samp call --to Sky\t\r")
    shown = shell.read_until("ARGS:")
    assert json.loads(shell.read_until("]") + "]") == ["call", "--to", "Sky"]
    assert "SAMP" not in shown
    assert "Error" not in shown


def test_descriptions(start_samp: Path) -> None:
    """fish shows the descriptions of candidates."""
    with Shell(["fish", "--no-config"], start_samp) as fish:
        fish.run("samp completion fish | source")
        fish.write("complete -C 'samp sno'; samp done\r")
        assert "snoop\tShow messages as they arrive" in fish.read_until('ARGS:["done"]').replace("        ", "\t")


def test_own_client_is_not_offered(samp_hub: SAMPHubServer) -> None:
    assert texts("call", "--to", "") == []
