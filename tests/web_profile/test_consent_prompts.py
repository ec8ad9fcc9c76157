# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The prompts for consent: functions, queues, the terminal, a window."""

from __future__ import annotations

import builtins
import json
import os
import select
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pyvo.samp.web_profile import consent_prompts
from pyvo.samp.web_profile.consent import ConsentRequest, ConsentTicket, Decision
from pyvo.samp.web_profile.consent_prompts import WebProfileDialog, make_prompt
from pyvo.samp.web_profile.consent_terminal import _question

ORIGIN = "https://sky.example"
DETAILS = {"samp.name": "Sky page", "author": "me"}
PEER = ("127.0.0.1", 999)


def make_ticket(origin: str = ORIGIN, *, can_upload: bool = False) -> ConsentTicket:
    request = ConsentRequest("Sky page", origin, DETAILS, PEER, can_upload=can_upload)
    return ConsentTicket(request, lambda _decision: None)


def ask_in_thread(prompt, ticket):
    decisions = []
    thread = threading.Thread(target=lambda: decisions.append(prompt.ask(ticket)), daemon=True)
    thread.start()
    return thread, decisions


@pytest.mark.parametrize(
    ("result", "decision"),
    [
        (True, Decision.ONCE),
        ("once", Decision.ONCE),
        ("always", Decision.ALWAYS),
        (Decision.ALWAYS, Decision.ALWAYS),
        (False, Decision.DENY),
        (None, Decision.DENY),
        ("no", Decision.DENY),
        ("yes of course", Decision.DENY),
        (1, Decision.DENY),
        (np.bool_(True), Decision.ONCE),
        (np.bool_(False), Decision.DENY),
        (np.int64(1), Decision.DENY),
    ],
)
def test_a_function_decides(result, decision):
    calls = []
    assert make_prompt(lambda *given: (calls.append(given), result)[1]).ask(make_ticket()) is decision
    assert calls == [("Sky page", DETAILS, PEER, ORIGIN)]


def test_a_function_of_two_arguments():
    assert make_prompt(lambda name, origin: (name, origin) == ("Sky page", ORIGIN)).ask(make_ticket()) is Decision.ONCE


def test_deny_denies_the_page():
    assert make_prompt("deny").ask(make_ticket()) is Decision.DENY


def test_an_invalid_dialog_is_rejected_at_once():
    with pytest.raises(ValueError, match="'terminal', 'tk', 'window', 'deny'"):
        make_prompt("gtk")
    with pytest.raises(TypeError, match="instance"):
        make_prompt(WebProfileDialog)
    with pytest.raises(TypeError, match="samp_name"):
        make_prompt(lambda: True)
    for dialog in (42, True, object(), ["tk"]):
        with pytest.raises(TypeError, match="is not a way to ask"):
            make_prompt(dialog)


class Dialog(WebProfileDialog):
    def __init__(self):  # like existing programs, without calling the base class
        self.shown = []

    def show_dialog(self, samp_name, details, client, origin):
        self.shown.append((samp_name, details, client, origin))


def wait_for(condition):
    """Wait until another thread has made the condition true."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        threading.Event().wait(0.005)


def test_an_upstream_dialog():
    dialog = Dialog()
    dialog.handle_queue()  # before a hub uses it
    prompt = make_prompt(dialog)
    dialog.handle_queue()
    assert dialog.shown == []
    for decide, decision in ((dialog.consent, Decision.ONCE), (dialog.reject, Decision.DENY)):
        thread, decisions = ask_in_thread(prompt, make_ticket())
        wait_for(lambda: (dialog.handle_queue(), dialog.shown)[1])
        assert dialog.shown.pop() == ("Sky page", DETAILS, PEER, ORIGIN)
        decide()
        thread.join(5)
        assert decisions == [decision]


def test_a_second_click_does_not_allow_the_next_page():
    dialog = Dialog()
    prompt = make_prompt(dialog)
    dialog.consent()  # a second click, while no request is open
    thread, decisions = ask_in_thread(prompt, make_ticket())
    wait_for(lambda: (dialog.handle_queue(), dialog.shown)[1])
    assert decisions == []
    dialog.reject()
    thread.join(5)
    assert decisions == [Decision.DENY]


@pytest.mark.parametrize("is_shown", [False, True])
def test_a_second_click_while_the_next_page_waits_to_be_shown(is_shown):
    """The request is in the dialog's queue, but the user has not seen it."""
    dialog = Dialog()
    prompt = make_prompt(dialog)
    first, decisions = ask_in_thread(prompt, make_ticket())
    wait_for(lambda: (dialog.handle_queue(), dialog.shown)[1])
    dialog.consent()
    first.join(5)
    assert decisions == [Decision.ONCE]
    second, decisions = ask_in_thread(prompt, make_ticket("https://evil.example"))
    wait_for(lambda: not dialog.queue_request.empty())
    dialog.queue_result.put(True)
    if is_shown:
        dialog.handle_queue()
        assert dialog.shown[-1][-1] == "https://evil.example"
    second.join(0.1)
    assert decisions == []
    dialog.handle_queue()
    dialog.reject()
    second.join(5)
    assert decisions == [Decision.DENY]


def test_a_dialog_that_cannot_be_shown_denies_the_page():
    class Broken(WebProfileDialog):
        def show_dialog(self, *_):
            raise RuntimeError("no window today")

    dialog = Broken()
    prompt = make_prompt(dialog)
    for _ in range(2):
        thread, decisions = ask_in_thread(prompt, make_ticket())
        wait_for(lambda: not dialog.queue_request.empty())
        with pytest.raises(RuntimeError, match="no window today"):
            dialog.handle_queue()
        thread.join(5)
        assert decisions == [Decision.DENY]


def test_a_request_that_is_not_shown_yet_is_cancelled():
    dialog = Dialog()
    ticket = make_ticket()
    thread, decisions = ask_in_thread(make_prompt(dialog), ticket)
    wait_for(lambda: not dialog.queue_request.empty())
    ticket.cancel()
    thread.join(5)
    dialog.handle_queue()
    assert dialog.shown == []
    assert decisions == [Decision.DENY]


def test_a_request_that_is_shown_ends_when_the_hub_stops():
    dialog = Dialog()
    prompt = make_prompt(dialog)
    thread, decisions = ask_in_thread(prompt, make_ticket())
    wait_for(lambda: (dialog.handle_queue(), dialog.shown)[1])
    prompt.close()
    thread.join(5)
    assert decisions == [Decision.DENY]


def test_any_object_may_get_the_two_queues():
    class Plain:
        pass

    plain = Plain()
    thread, decisions = ask_in_thread(make_prompt(plain), make_ticket())
    assert plain.queue_request.get(timeout=5) == (DETAILS, PEER, ORIGIN)
    plain.queue_result.put(True)
    thread.join(5)
    assert decisions == [Decision.ONCE]


def test_a_dialog_must_override_show_dialog():
    with pytest.raises(NotImplementedError, match="show_dialog"):
        WebProfileDialog().show_dialog("n", {}, PEER, "o")


# The terminal


def test_without_a_terminal_the_page_is_denied(caplog):
    assert make_prompt(None).ask(make_ticket()) is Decision.DENY
    assert "no terminal" in caplog.text


def test_a_notebook_prompts_with_its_own_input(monkeypatch):
    asked = []
    monkeypatch.setattr(builtins, "input", lambda prompt: (asked.append(prompt), "A ")[1])
    assert make_prompt("terminal").ask(make_ticket()) is Decision.ALWAYS
    assert "Sky page" in asked[0]
    assert ORIGIN in asked[0]
    assert make_prompt("terminal").ask(make_ticket("null")) is Decision.ONCE
    assert "[a]" not in asked[1]


def test_a_notebook_that_accepts_no_input_denies_the_page(monkeypatch):
    def no_input(_prompt):
        raise RuntimeError("raw_input was called, but this frontend does not support input requests.")

    monkeypatch.setattr(builtins, "input", no_input)
    assert make_prompt("terminal").ask(make_ticket()) is Decision.DENY


def test_a_python_shell_that_reads_single_keys_is_not_a_notebook(monkeypatch, caplog):
    """Since Python 3.13 the Python shell has its own ``input``, which no other thread may call."""

    class Reader:
        def input(self, _prompt=""):
            raise AssertionError("must not be called")

    Reader.input.__module__ = "_pyrepl.readline"
    monkeypatch.setattr(builtins, "input", Reader().input)
    assert make_prompt("terminal").ask(make_ticket()) is Decision.DENY
    assert "PYTHON_BASIC_REPL=1" in caplog.text


SCRIPT = """
    import sys, threading
    from pyvo.samp.web_profile.consent import ConsentRequest, ConsentTicket
    from pyvo.samp.web_profile.consent_prompts import make_prompt

    ticket = ConsentTicket(ConsentRequest("Sky page", "https://sky.example", {}, ("127.0.0.1", 9)), lambda _: None)
    if "gone" in sys.argv:
        threading.Timer(0.5, ticket.cancel).start()
    decisions = []
    thread = threading.Thread(target=lambda: decisions.append(make_prompt(None).ask(ticket)))
    thread.start()
    thread.join()
    print("DECISION", decisions[0].value)
"""


@pytest.mark.parametrize("can_upload", [False, True])
def test_terminal_and_tk_mention_uploads(can_upload):
    request = make_ticket(can_upload=can_upload).request
    for text in (_question(request), json.loads(consent_prompts._to_json(request))["meaning"]):
        assert ("store up to 4 GiB" in " ".join(text.split())) == can_upload


needs_pty = pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals on Windows")


class OnTerminal:
    """A process with a terminal of its own."""

    def __init__(self, *command: str) -> None:
        import pty

        root = Path(__file__).parents[2]
        pid, self.descriptor = pty.fork()
        if pid == 0:  # in the child, whose input and output are the terminal
            os.execvpe(command[0], command, {**os.environ, "PYTHONPATH": str(root), "TERM": "xterm"})
        self.pid = pid
        self.seen = ""

    def until(self, text: str, timeout: float = 30.0) -> str:
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            ready = select.select([self.descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"{text!r} does not appear after {self.seen!r}"
            try:
                data = os.read(self.descriptor, 4096)
            except OSError:
                data = b""
            assert data, f"ended without {text!r}: {self.seen!r}"
            self.seen += data.decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def shows(self, text: str) -> bool:
        """Whether the text appears within a second."""
        try:
            self.until(text, 1.0)
        except AssertionError:
            return False
        return True

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def close(self) -> None:
        os.close(self.descriptor)
        os.waitpid(self.pid, 0)


@pytest.fixture
def on_terminal():
    opened = []

    def start(*command):
        opened.append(OnTerminal(*command))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


@needs_pty
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("typed", "decision"),
    [
        ("y\n", "once"),
        ("Always\n", "always"),
        ("n\n", "deny"),
        ("\n", "deny"),
        ("\x04", "deny"),
        ("maybe\n|y\n", "once"),
        ("yse\n|\n", "deny"),
        ("maybe\n|maybe\n", "deny"),
    ],
)
def test_the_terminal_prompts_from_a_thread(on_terminal, typed, decision):
    terminal = on_terminal(sys.executable, "-c", textwrap.dedent(SCRIPT))
    shown = terminal.until("[n] no: ")
    assert "Sky page" in shown
    assert ORIGIN in shown
    first, _, second = typed.partition("|")
    terminal.type(first)
    if second:
        terminal.until("Please answer y or n: ")
        terminal.type(second)
    terminal.until(f"DECISION {decision}")


@needs_pty
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_the_terminal_prompt_ends_when_the_page_goes_away(on_terminal):
    terminal = on_terminal(sys.executable, "-c", textwrap.dedent(SCRIPT), "gone")
    terminal.until("[n] no: ")
    terminal.until("The page was closed")
    terminal.until("DECISION deny")


@needs_pty
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_prompt_does_not_stop_a_hub_in_the_background_of_a_terminal(on_terminal, tmp_path):
    script = tmp_path / "ask.py"
    script.write_text(textwrap.dedent(SCRIPT))
    terminal = on_terminal("/bin/sh", "-c", f"set -m; {sys.executable} {script} & wait; echo DONE")
    terminal.until("DECISION deny")
    terminal.until("DONE")


@needs_pty
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_the_prompt_waits_until_the_python_shell_has_read_its_line(on_terminal, tmp_path):
    script = tmp_path / "ask.py"
    start = textwrap.dedent(SCRIPT).partition("thread.start()")[0]
    script.write_text(start + "threading.Timer(1, thread.start).start()")
    terminal = on_terminal(sys.executable, "-i", str(script))
    terminal.until("press Return")
    while not terminal.shows("[n] no: "):
        terminal.type("\n")
    terminal.type("y\n")
    terminal.until(">>> ")
    terminal.type("thread.join(); print(*decisions)\n")
    terminal.until("Decision.ONCE")


@needs_pty
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_ipython_suspends_its_prompt(on_terminal):
    python = _python_with_ipython()
    if python is None:
        pytest.skip("IPython is not installed")
    code = textwrap.dedent(SCRIPT).partition("thread.start()")[0] + "threading.Timer(2, thread.start).start()"
    terminal = on_terminal(python, "-m", "IPython", "--no-banner", "-i", "-c", code)
    terminal.until("[n] no: ")
    terminal.type("y\n")
    terminal.until("In [")
    terminal.type("thread.join(); print(*decisions)\r")
    terminal.until("Decision.ONCE")


def _python_with_ipython() -> str | None:
    for python in (sys.executable, os.environ.get("SAMP_TEST_IPYTHON", "")):
        if (
            python
            and subprocess.run([python, "-c", "import IPython"], capture_output=True, check=False).returncode == 0
        ):
            return python
    return None


# The window


@pytest.fixture
def screen(monkeypatch, tmp_path):
    """Start an X server for the test."""
    if not (shutil.which("Xvfb") and shutil.which("xdotool")):
        pytest.skip("Xvfb or xdotool is not installed")
    pytest.importorskip("tkinter")
    # with -displayfd the server chooses a free display and prints its number: tests run in parallel
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with server:
        assert server.stdout is not None
        monkeypatch.setenv("DISPLAY", ":" + server.stdout.readline().decode().strip())
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        yield
        server.terminate()


def find_window() -> str:
    found = subprocess.run(
        ["xdotool", "search", "--sync", "--onlyvisible", "--name", "asks to join SAMP"],
        capture_output=True, check=True, timeout=20, text=True,
    )  # fmt: skip
    return found.stdout.split()[0]


def press(*keys: str) -> None:
    subprocess.run(["xdotool", "key", "--delay", "60", *keys], check=True, timeout=10)


def open_window(origin: str = ORIGIN):
    ticket = make_ticket(origin)
    thread, decisions = ask_in_thread(make_prompt("tk"), ticket)
    window = find_window()
    threading.Event().wait(1.2)  # the buttons are disabled at first
    subprocess.run(["xdotool", "windowfocus", "--sync", window], check=True, timeout=10)
    return ticket, thread, decisions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("origin", "keys", "decision"),
    [
        (ORIGIN, ["Tab", "Tab", "space"], Decision.ONCE),
        (ORIGIN, ["Tab", "Return"], Decision.ALWAYS),
        (ORIGIN, ["Return"], Decision.DENY),
        (ORIGIN, ["Escape"], Decision.DENY),
        ("null", ["Tab", "Return"], Decision.ONCE),
    ],
)
def test_the_window_returns_the_decision(screen, origin, keys, decision):
    _ticket, thread, decisions = open_window(origin)
    press(*keys)
    thread.join(10)
    assert decisions == [decision]


@pytest.mark.slow
def test_the_window_closes_when_the_page_goes_away(screen):
    ticket, thread, decisions = open_window()
    ticket.cancel()
    thread.join(10)
    assert decisions == [Decision.DENY]


@pytest.mark.slow
def test_keys_that_are_typed_when_the_window_opens_do_not_allow_the_page(screen):
    ticket = make_ticket()
    thread, decisions = ask_in_thread(make_prompt("tk"), ticket)
    window = find_window()
    subprocess.run(["xdotool", "windowfocus", "--sync", window], check=True, timeout=10)
    press("Tab", "Tab", "space", "Return", "y")
    assert decisions in ([], [Decision.DENY])
    ticket.cancel()
    thread.join(10)
    assert decisions == [Decision.DENY]


@pytest.mark.slow
def test_the_window_closes_with_its_hub(screen):
    window = subprocess.Popen(
        [sys.executable, "-m", "pyvo.samp.web_profile.consent_tk"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    with window:
        assert window.stdin is not None
        window.stdin.write(consent_prompts._to_json(make_ticket().request) + b"\n")
        window.stdin.flush()
        find_window()
        window.stdin.close()
        assert window.wait(10) == 1


def test_without_tkinter_the_program_reports_it():
    script = Path(consent_prompts.__file__).with_name("consent_tk.py")
    code = f"import runpy, sys; sys.modules['tkinter'] = None; runpy.run_path({str(script)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"{}\n", capture_output=True, check=False, timeout=20
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == (b"no window: tkinter is not installed", b"")


@pytest.mark.parametrize("executable", ["", None, "/nonexistent/python", "/"])
def test_without_a_python_executable_the_page_is_denied(monkeypatch, caplog, executable):
    """An application that embeds Python may have no executable."""
    monkeypatch.setattr(sys, "executable", executable)
    assert make_prompt("tk").ask(make_ticket()) is Decision.DENY
    assert "Sky page is denied" in caplog.text


@pytest.mark.slow
def test_without_a_display_the_page_is_denied(monkeypatch, caplog):
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert make_prompt("tk").ask(make_ticket()) is Decision.DENY
    assert "no window" in caplog.text
