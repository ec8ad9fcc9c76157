# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Runs a hub of whichever ``pyvo.samp`` its interpreter finds, until its standard input ends.

Prints the hub's parameters as a line of JSON. With ``web`` as argument there is a Web Profile too, on a free port;
everybody who asks is let in. With ``window`` the hub window is served, and its address printed.
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
