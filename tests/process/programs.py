# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Python programs in their own processes; the tests wait for lines of their output."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

HUB_IS_RUNNING = "The hub is running"


class Program:
    """
    A running program; it is killed at the end of the ``with`` block if it has not ended.

    Parameters
    ----------
    arguments : sequence of str
        Arguments of the interpreter.
    environment : mapping of str to str
        All of its environment variables.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", *arguments],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def output(self) -> str:
        """All output so far."""
        return "\n".join(self.lines)

    def wait_for(self, text: str, timeout: float = 20.0) -> None:
        """Wait until a line contains ``text``."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or any(text in line for line in self.lines), timeout)
        assert any(text in line for line in self.lines), f"no {text!r} in:\n{self.output}"

    def write_line(self, line: str) -> None:
        """Write a line to the program's standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def wait(self, timeout: float = 20.0) -> int:
        """Wait until the program has ended; return its exit status."""
        status = self.process.wait(timeout)
        self._reader.join(timeout)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


def start_hub(environment: Mapping[str, str], *options: str) -> Program:
    """Start ``python -m pyvo.samp.hub`` and wait until the hub runs."""
    program = Program(["-m", "pyvo.samp.hub", "-w", *options], environment)
    try:
        program.wait_for(HUB_IS_RUNNING)
    except AssertionError:
        program.__exit__(None, None, None)
        raise
    return program
