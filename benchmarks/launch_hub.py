# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Run a hub of the ``pyvo.samp`` that the interpreter finds, until standard input ends.

It prints the hub's parameters as a line of JSON. With the argument ``web`` the hub also serves the Web Profile, on a
free port, and allows every registration. With ``window`` it serves the hub window, and prints its address.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pyvo.samp import SAMPHubServer


def main() -> None:
    options: dict[str, Any] = {"web_profile": False}
    if "web" in sys.argv:
        options = {"web_profile_dialog": lambda *_: True, "web_port": 0}
    hub = SAMPHubServer(**options)
    hub.start(wait=False)
    params = dict(hub.params)
    if "web" in sys.argv:
        params["web-port"] = str(hub._web_port)
    if "window" in sys.argv:
        params["window"] = hub.open_window(browser=False)
    print(json.dumps(params), flush=True)
    sys.stdin.read()
    hub.stop()


if __name__ == "__main__":
    main()
