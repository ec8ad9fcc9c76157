# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp bridge`` joins the hub of this machine to hubs of other machines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from ..bridge import Bridge, BridgeState, LocalPair, Policy, RemoteClient
from ..errors import SAMPHubError, SAMPValueError
from ..hub import SAMPHubServer
from ..lockfile import LOCKURL, display_path, is_url, lockfile_source, ping_hub, read_lockfile
from ..transport.urls import file_url_to_path
from .arguments import Command, pattern
from .client_session import get_interruptible
from .output import CommandError, Status, client_label, help_epilog, print_notice, sanitize

if TYPE_CHECKING:
    from ..bridge.link import Transport

_EPILOG = help_epilog(
    """\
  samp bridge user@server      join the hub here and the one on the server
  samp bridge server --remote-command "python3 -m pyvo.samp"
  samp bridge nats://nats.example.org/survey
                               join all hubs in this room of a NATS server
  samp bridge --between ~/.samp ~/.samp-1/hub
                               two hubs of this machine
""",
    {
        0: "stopped by ^C",
        1: "",
        3: "no hub is running at one end, or the ends have different versions",
        130: None,
    },
)


class _StateEvent(NamedTuple):
    """A new state of a bridge, and a text about it. The label is the name of the other end."""

    bridge: Bridge
    label: str
    state: BridgeState
    text: str


class _ClientEvent(NamedTuple):
    """A client of another hub has been registered here, or unregistered."""

    client: RemoteClient
    is_present: bool


_Event = _StateEvent | _ClientEvent


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    hubs = parser.add_argument_group("what to join to the hub of this machine")
    hubs.add_argument(
        "where",
        nargs="?",
        metavar="[USER@]HOST | nats://SERVER/ROOM",
        help="a machine that you can reach with ssh, or a room on a NATS server for any number of hubs",
    )
    hubs.add_argument(
        "--between",
        nargs=2,
        metavar="LOCKURL",
        help="join two hubs of this machine, named by their lockfiles (a path, or std-lockurl:...)",
    )
    hubs.add_argument("--stdio", action="store_true", help="run as the other end: only for the command that ssh starts")
    ssh = parser.add_argument_group("through ssh")
    ssh.add_argument(
        "--ssh-option", action="append", default=[], metavar="OPT", help="an option for ssh, such as Port=2222"
    )
    ssh.add_argument(
        "--remote-command",
        default="samp",
        metavar="COMMAND",
        help='the command on the other machine, such as "python3 -m pyvo.samp" (default: %(default)s)',
    )
    ssh.add_argument(
        "--remote-hub", metavar="LOCKURL", help="the lockfile of the hub there (default: SAMP_HUB there, or ~/.samp)"
    )
    limits = parser.add_argument_group("what may cross the bridge")
    for name, way in (("--allow-in", "come in"), ("--allow-out", "go out")):
        limits.add_argument(
            name,
            action="extend",
            nargs="+",
            type=pattern,
            default=[],
            metavar="MTYPE",
            help=f"more MTypes or wildcards that may {way} (always allowed: those for tables, images, positions, ...)",
        )
    limits.add_argument("--no-files", action="store_true", help="do not transfer files between the machines")
    other = parser.add_argument_group("other")
    other.add_argument("--label", metavar="TEXT", help="the name of this machine that is shown at the other ends")
    other.add_argument("--start-hub", action="store_true", help="start a hub at each end where none is running")
    other.add_argument("--no-reconnect", action="store_true", help="exit when the connection is lost")


def _run(options: argparse.Namespace) -> Status:
    given = [options.where is not None, options.between is not None, options.stdio]
    if sum(given) != 1:
        options.parser.error("give one of HOST, nats://SERVER/ROOM and --between")
    if options.stdio:
        return _run_stdio(options)
    events: SimpleQueue[_Event] = SimpleQueue()
    try:
        with ExitStack() as stack:
            if options.start_hub:
                for lockurl in options.between or [None]:
                    stack.enter_context(_own_hub(lockurl))
            try:
                bridges = _make_bridges(options, events)
            except SAMPValueError as error:
                options.parser.error(sanitize(str(error), 500))
            for bridge in bridges:
                stack.callback(bridge.stop)
            for bridge in bridges:
                _start(bridge)
            print_notice("the bridge runs until ^C")
            while True:
                _show(get_interruptible(events))
    except KeyboardInterrupt:  # the normal end
        return Status.OK


def _start(bridge: Bridge) -> None:
    try:
        bridge.start()
    except SAMPHubError as error:
        raise SAMPHubError(f"{error} Or add --start-hub.") from error


def _make_bridges(options: argparse.Namespace, events: SimpleQueue[_Event]) -> list[Bridge]:
    """Return the bridge of the hub here, or, for --between, the bridges of both hubs."""
    policy = Policy(options.allow_in, options.allow_out, files=not options.no_files)
    if options.between is not None:
        # what comes in to the first hub goes out of the second
        opposite = Policy(options.allow_out, options.allow_in, files=not options.no_files)
        first, second = (display_path(each.removeprefix(LOCKURL)) for each in options.between)
        pair = LocalPair((options.label or first, second))
        return [
            _make_bridge(hub, end, rules, options.label, events)
            for hub, end, rules in zip(options.between, pair.ends, (policy, opposite), strict=True)
        ]
    return [_make_bridge(None, _make_transport(options), policy, options.label, events)]


def _make_bridge(
    hub: str | None, transport: Transport, policy: Policy, label: str | None, events: SimpleQueue[_Event]
) -> Bridge:
    bridge = Bridge(
        hub,
        transport,
        policy,
        label=label,
        on_state=lambda state, text: events.put(_StateEvent(bridge, transport.label, state, text)),
        on_client=lambda client, is_present: events.put(_ClientEvent(client, is_present)),
    )
    return bridge


def _make_transport(options: argparse.Namespace) -> Transport:
    if "://" in options.where:
        try:
            from ..bridge.nats_room import NATSRoom  # noqa: PLC0415 - needs the extra "nats"
        except ImportError as error:
            text = 'nats:// needs the package nats-py: python3 -m pip install "pyvo-samp[nats]"'
            raise CommandError(Status.FAILED, text) from error
        return NATSRoom(options.where, reconnect=not options.no_reconnect)
    from ..bridge.ssh import SSHTransport  # noqa: PLC0415 - imported where it is needed

    return SSHTransport(
        options.where,
        options=options.ssh_option,
        program=options.remote_command,
        arguments=_remote_arguments(options),
        reconnect=not options.no_reconnect,
        on_line=lambda line: print(sanitize(line, 2000), file=sys.stderr, flush=True),
    )


def _remote_arguments(options: argparse.Namespace) -> list[str]:
    """Return the options for the other end: there, --allow-in and --allow-out are exchanged."""
    words = [word for word in ("--no-files", "--start-hub") if getattr(options, word[2:].replace("-", "_"))]
    if options.remote_hub is not None:
        words += ["--remote-hub", options.remote_hub]
    for name, mtypes in (("--allow-in", options.allow_out), ("--allow-out", options.allow_in)):
        words += [name, *mtypes] if mtypes else []
    return words


def _show(event: _Event) -> None:
    """Print an event; raise an error if the bridge has failed."""
    if isinstance(event, _ClientEvent):
        client = event.client
        sign = "+" if event.is_present else "-"
        print(f"{sanitize(client.peer, 60)}: {sign} {client_label(client.local_id, client.name)}", flush=True)
        return
    if event.state is BridgeState.FAILED:
        status = event.bridge.exit_status
        raise CommandError(Status(status) if status in set(Status) else Status.FAILED, event.text)
    shown = {
        BridgeState.WAITING: f"the hub here has stopped ({event.text}); waiting for the next one",
        BridgeState.CONNECTING: event.text or f"connecting to {event.label}",
        BridgeState.CONNECTED: event.text,
        BridgeState.LOST: f"no connection to {event.label}: {event.text}",
    }.get(event.state)
    if shown:
        print_notice(shown)


@contextmanager
def _own_hub(lockurl: str | None) -> Iterator[None]:
    """Run a hub in this process for the length of a ``with`` block, unless one is running."""
    source = lockfile_source() if lockurl is None else lockurl.removeprefix(LOCKURL)
    try:
        is_running = ping_hub(read_lockfile(source))
    except SAMPHubError:
        is_running = False
    if is_running or is_url(source):
        yield
        return
    path = file_url_to_path(source) if source.startswith("file:") else source
    hub = SAMPHubServer(lockfile=path, web_profile=False, label="started by samp bridge")
    hub.start()
    try:
        yield
    finally:
        hub.stop()


def _run_stdio(options: argparse.Namespace) -> Status:
    """Run the other end of a link until the link or the hub here ends."""
    if sys.stdin.isatty():
        options.parser.error("--stdio is for ssh: the link uses standard input and output")
    from ..bridge.stdio import NO_HUB, StdioTransport  # noqa: PLC0415 - imported where it is needed

    events: SimpleQueue[_Event] = SimpleQueue()
    policy = Policy(options.allow_in, options.allow_out, files=not options.no_files)
    with ExitStack() as stack:
        transport = StdioTransport()
        stack.callback(transport.close)
        try:
            if options.start_hub:
                stack.enter_context(_own_hub(options.remote_hub))
            bridge = _make_bridge(options.remote_hub, transport, policy, options.label, events)
            stack.callback(bridge.stop)
            bridge.start()
        except SAMPHubError as error:
            transport.reject(str(error), NO_HUB)
            return Status.NO_HUB
        while True:
            event = get_interruptible(events)
            if isinstance(event, _StateEvent) and event.state in {BridgeState.FAILED, BridgeState.WAITING}:
                return Status.OK  # the other end informs the user


COMMANDS = {"bridge": Command(_add_arguments, _run, _EPILOG)}
