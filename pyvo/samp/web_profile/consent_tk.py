# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The window that asks whether a web page may register. It runs in a process of its own.

The process reads one line of JSON from standard input, ``{"name", "origin", "meaning", "always"}``, and writes the
decision to standard output: ``once``, ``always`` or ``deny``, or a line with an error. The window closes
when standard input is closed: the hub has ended or needs no decision any more.

This module uses only the standard library, so that it can be run by its path, without the package.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

try:
    import tkinter as tk
    from tkinter import ttk
except ImportError:  # many systems install it as a separate package
    tk = None  # type: ignore[assignment]

__all__ = ["ConsentWindow", "main"]

#: Milliseconds for which the buttons are disabled: the window may open while the user types into another one, and these
#: keys must not decide.
BUTTON_DELAY_MS = 800


class ConsentWindow:
    """Fills a Tk window with a request. It calls ``decide`` with ``"once"``, ``"always"`` or ``"deny"``."""

    def __init__(self, root: tk.Tk, request: dict[str, Any], decide: Callable[[str], object]) -> None:
        self._root = root
        self._decide = decide
        self._buttons: list[ttk.Button] = []
        root.title("A web page asks to join SAMP")
        root.resizable(width=False, height=False)
        frame = ttk.Frame(root, padding=18)
        frame.grid()
        frame.columnconfigure(1, weight=1)
        self._add_texts(frame, request)
        self._add_buttons(frame, always=bool(request["always"]))
        root.protocol("WM_DELETE_WINDOW", lambda: decide("deny"))
        root.bind("<Escape>", lambda _event: decide("deny"))
        root.after(BUTTON_DELAY_MS, self._enable)
        self._to_front()

    def _add_texts(self, frame: ttk.Frame, request: dict[str, Any]) -> None:
        heading = ttk.Label(frame, text="A web page asks to join SAMP", font=("TkDefaultFont", 13, "bold"))
        heading.grid(columnspan=2, sticky="w")
        about = "With SAMP the astronomy programs on this computer talk to each other."
        ttk.Label(frame, text=about, wraplength=520).grid(columnspan=2, sticky="w", pady=(2, 12))
        for row, (title, key) in enumerate((("Name", "name"), ("Origin", "origin")), start=2):
            ttk.Label(frame, text=title).grid(row=row, column=0, sticky="nw", padx=(0, 12), pady=2)
            value = ttk.Label(frame, text=request[key], wraplength=450, font=("TkDefaultFont", 11, "bold"))
            value.grid(row=row, column=1, sticky="w", pady=2)
        meaning = f"{request['meaning']} Allow it only if you have just asked this page to connect."
        ttk.Label(frame, text=meaning, wraplength=520).grid(columnspan=2, sticky="w", pady=(12, 16))

    def _add_buttons(self, frame: ttk.Frame, *, always: bool) -> None:
        row = ttk.Frame(frame)
        row.grid(columnspan=2, sticky="e")
        choices = [("Deny", "deny"), ("Allow once", "once")]
        if always:
            choices.insert(1, ("Always for this origin, while the hub runs", "always"))
        for column, (text, decision) in enumerate(choices):
            button = ttk.Button(row, text=text, command=partial(self._decide, decision))
            button.state(["disabled"])
            button.bind("<Return>", lambda event: event.widget.invoke())
            button.grid(row=0, column=column, padx=(8, 0))
            self._buttons.append(button)

    def _enable(self) -> None:
        for button in self._buttons:
            button.state(["!disabled"])
        self._buttons[0].focus_set()  # a stray Return or blank denies

    def _to_front(self) -> None:
        root = self._root
        root.update_idletasks()
        left = (root.winfo_screenwidth() - root.winfo_reqwidth()) // 2
        top = (root.winfo_screenheight() - root.winfo_reqheight()) // 3
        root.geometry(f"+{left}+{top}")
        root.attributes("-topmost", True)
        root.lift()


def main() -> int:
    """Show the window and write the decision."""
    line = sys.stdin.readline()
    if not line:
        return 1

    def finish(text: str, status: int = 0) -> None:
        print(text, flush=True)  # noqa: T201 - the hub reads it
        os._exit(status)  # at once: a thread of this process waits for its input

    if tk is None:
        finish("no window: tkinter is not installed", 1)
    try:
        ConsentWindow(root := tk.Tk(), json.loads(line), finish)
    except tk.TclError as error:
        finish(f"no window: {error}".splitlines()[0], 1)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    root.mainloop()
    return 1


if __name__ == "__main__":
    sys.exit(main())
