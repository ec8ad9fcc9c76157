# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Runs a hub of whichever ``pyvo.samp`` its interpreter finds, until its standard input ends.

Prints the hub's parameters as a line of JSON. With ``web`` as argument there is a Web Profile too, on a free port;
everybody who asks is let in.
"""

from __future__ import annotations

import json
import sys

from pyvo.samp import SAMPHubServer


def make_doorman():
    """Make a dialog that lets everybody in."""
    from pyvo.samp.hub import WebProfileDialog  # noqa: PLC0415 - whoever has no door needs no doorman

    class Doorman(WebProfileDialog):
        def show_dialog(self, *_):
            self.consent()

    return Doorman()


def main() -> None:
    web = "web" in sys.argv
    door = make_doorman() if web else None
    hub = SAMPHubServer(web_profile=web, web_profile_dialog=door, **({"web_port": 0} if web else {}))
    hub.start(wait=False)
    params = dict(hub.params)
    if web:
        params["web-port"] = str(hub._web_port)
    print(json.dumps(params), flush=True)
    for _ in sys.stdin:  # each line asks to look at the door
        if door is not None:
            door.handle_queue()
    hub.stop()


if __name__ == "__main__":
    main()
