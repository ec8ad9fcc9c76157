# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp bridge`` joins hubs: the clients of each appear at the others."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from queue import SimpleQueue

from ..bridge import Bridge, BridgeState, LocalPair, Policy, RemoteClient
from ..lockfile import LOCKURL, display_path
from .arguments import Command, pattern
from .client_session import get_interruptible
from .output import CommandError, Status, client_label, help_epilog, sanitize

__all__ = ["COMMANDS"]

_EPILOG = help_epilog(
    """\
  samp bridge --between ~/.samp ~/.samp-1/samp-hub     two hubs of this machine
""",
    {
        Status.OK: "ended by ^C",
        Status.FAILED: "",
        Status.USAGE: "",
        Status.NO_HUB: "no hub is running at one end",
        Status.INTERRUPTED: None,
    },
)


#: A change of state of one of the bridges, with a text; or a client, and whether it is there.
_Event = tuple[Bridge, BridgeState, str] | tuple[RemoteClient, bool]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--between",
        nargs=2,
        metavar=("LOCKURL", "LOCKURL"),
        help="join two hubs of this machine, by the paths or URLs of their lockfiles",
    )
    group = parser.add_argument_group("what may pass")
    for name, direction in (("in", "come in from the other side"), ("out", "go out to the other side")):
        group.add_argument(
            f"--allow-{name}",
            nargs="+",
            action="extend",
            default=[],
            type=pattern,
            metavar="MTYPE",
            help=f"messages that may {direction}, in addition to those about tables, images and the like",
        )
    group.add_argument("--no-files", action="store_true", help="pass on no files and URLs of this machine")
    parser.add_argument("--label", metavar="TEXT", help="how the other side shows this one")


def _run(options: argparse.Namespace) -> int:
    if not options.between:
        options.parser.error("--between needs the lockfiles of two hubs")
    return _run_between(options)


def _run_between(options: argparse.Namespace) -> int:
    """Join two hubs of this machine: two engines in this process."""
    first, second = (display_path(each.removeprefix(LOCKURL)) for each in options.between)
    events: SimpleQueue[_Event] = SimpleQueue()
    # What comes in at the first hub goes out at the second
    policies = (
        Policy(options.allow_in, options.allow_out, files=not options.no_files),
        Policy(options.allow_out, options.allow_in, files=not options.no_files),
    )
    pair = LocalPair((options.label or first, second))
    try:
        with ExitStack() as stack:
            for lockfile, end, policy in zip(options.between, pair.ends, policies, strict=True):
                bridge = Bridge(lockfile, end, policy, on_client=lambda *event: events.put(event))
                bridge.on_state = lambda state, text, bridge=bridge: events.put((bridge, state, text))
                stack.callback(bridge.stop)
                bridge.start()
            while True:
                _show(get_interruptible(events))
    except KeyboardInterrupt:  # the normal end
        return Status.OK


def _show(event: _Event) -> None:
    """Print an event; raise an error if the bridge has given up."""
    if len(event) == 2:
        client, is_present = event
        sign = "+" if is_present else "-"
        print(f"{sanitize(client.peer, 60)}: {sign} {client_label(client.local_id, client.name)}", flush=True)
        return
    _bridge, state, text = event
    if state is BridgeState.FAILED:
        raise CommandError(Status.FAILED, text)
    if text:
        print(f"samp: {sanitize(text, 300)}", file=sys.stderr, flush=True)


COMMANDS = {"bridge": Command(_add_arguments, _run, _EPILOG)}
