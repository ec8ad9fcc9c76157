# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Open the hub window in the user's browser."""

from __future__ import annotations

import html
import os
import sys
import tempfile
import threading
import webbrowser
from pathlib import Path

#: Seconds to wait for the program that starts the browser.
TIMEOUT = 10.0


def write_redirect(url: str) -> Path:
    """
    Write a page that redirects to a URL into a file that only the user can read.

    The URL itself must not be on the browser's command line, which all users of a machine can see.
    """
    handle, name = tempfile.mkstemp(prefix="samp-window-", suffix=".html")  # with mode 0600
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(
            '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>SAMP hub</title>'
            f'<meta http-equiv="refresh" content="0;url={html.escape(url)}">\n'
        )
    return Path(name)


def open_browser(path: Path) -> bool:
    """Show a file in the user's browser; return whether the browser has probably started."""
    variables = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    if sys.platform not in {"win32", "darwin"} and not any(map(os.environ.get, variables)):
        # A text browser would take over the terminal of the hub.
        return False
    opened: list[bool] = []

    def run() -> None:
        opened.append(webbrowser.open(path.as_uri()))

    # Run this in a thread, because with some browsers `webbrowser` waits until they are closed.
    thread = threading.Thread(target=run, name="samp-browser", daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return opened == [True]
