# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The command ``samp``, or ``python -m pyvo.samp``.

`COMMANDS` is the table of subcommands. It names the module of each; the ``COMMANDS`` of that module has its `Command`.
Only the module of the command that runs is imported, so that ``samp list`` does not wait for the imports of
``samp send``.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module

from ..errors import SAMPError, SAMPHubError
from ..process_events import signals_as_exit
from .arguments import Command
from .output import CleanFormatter, CommandError, Status, is_pipe_closed, print_notice

#: The module and the description of each subcommand.
COMMANDS = {
    "hub": ("hub", "Run a hub until you stop it with ^C."),
    "list": ("list", "List the connected clients and their subscriptions."),
    "send": ("send", "Send a table, image, spectrum or coverage to other programs."),
    "receive": ("receive", "Save the files that other programs send."),
    "point": ("point", "Point other programs at a position in the sky."),
    "call": ("call", "Send a message and show the responses."),
    "notify": ("call", "Send a message that needs no response."),
    "snoop": ("snoop", "Show messages as they arrive, and record them."),
    "replay": ("replay", "Send the messages of a recording again."),
    "bridge": ("bridge", "Join the hubs of several machines, so that their clients find each other."),
    "doctor": ("doctor", "Find out why programs do not find each other, and how to fix it."),
    "demo": ("demo", "Send a table from one program to another, and explain each step."),
    "completion": ("completion", "Print the script that lets your shell complete samp commands."),
}

EPILOG = """\
examples:
  samp list                        the connected clients
  samp send catalogue.fits         to every program that can load it
  samp point 05:34:31.9 +22:00:52
  samp doctor                      when something does not work

`samp COMMAND --help` shows the options and exit statuses of a command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program with the arguments, by default those of the command line, and return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(lambda: _parse(words))


def run_command(parse: Callable[[], argparse.Namespace]) -> int:
    """
    Parse the command line, call the ``run`` of the result with it, and return the exit status (see `Status`).

    Errors are printed.
    """
    with _output_setup(), signals_as_exit():
        try:
            try:
                options = parse()
                return int(options.run(options))
            finally:
                _flush()
        except (CommandError, SAMPError, OSError) as error:
            if is_pipe_closed(error):
                return Status.PIPE_CLOSED
            print_notice(str(error))
            if isinstance(error, CommandError):
                return error.status
            return Status.NO_HUB if isinstance(error, SAMPHubError) else Status.FAILED
        except KeyboardInterrupt:
            return Status.INTERRUPTED


def _flush() -> None:
    """Flush the output here, where an error can be handled; at exit the interpreter would print the error."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # a replaced stdout has no descriptor
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        raise


def _parse(arguments: list[str]) -> argparse.Namespace:
    if arguments[:1] == ["_complete"]:  # from a shell's completion script; any options may follow
        complete = import_module(".completion", __package__).complete
        return argparse.Namespace(run=lambda _options: complete(arguments[1:]))
    if arguments and arguments[0] in COMMANDS:
        return _parse_command(arguments[0], arguments[1:])
    parser = argparse.ArgumentParser(
        prog="samp",
        description="SAMP: let TOPCAT, Aladin, DS9, web pages and Python exchange tables and images.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = import_module("..", __package__).__version__
    parser.add_argument("--version", action="version", version=f"samp {version}", help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (_module, text) in COMMANDS.items():
        commands.add_parser(name, help=text)
    return parser.parse_args(arguments)  # always exits: with the help or with an error


def load_command(name: str) -> tuple[Command, argparse.ArgumentParser]:
    """Import the module of a command, and make the parser of the command."""
    module_name, text = COMMANDS[name]
    command: Command = import_module(f".{module_name}", __package__).COMMANDS[name]
    parser = argparse.ArgumentParser(
        prog=f"samp {name}",
        description=text,
        epilog=command.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    parser.set_defaults(run=command.run, parser=parser)
    return command, parser


def _parse_command(name: str, arguments: list[str]) -> argparse.Namespace:
    command, parser = load_command(name)
    arguments = command.prepare(arguments)
    if {"-h", "--help"} & set(arguments):  # parse_intermixed_args prints a wrong usage line
        parser.print_help()
        parser.exit()
    # intermixed: `--to topcat` may stand between the MType and its parameters
    return parser.parse_intermixed_args(arguments)


@contextlib.contextmanager
def _output_setup() -> Iterator[None]:
    """Print warnings and log records as lines, and escape the characters that the terminal cannot show."""
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            _ensure_stream(name, stack)
            reconfigure = getattr(getattr(sys, name), "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="backslashreplace")
        handler = logging.StreamHandler()
        handler.setFormatter(CleanFormatter("samp: %(message)s"))
        log = logging.getLogger("pyvo")  # not pyvo.samp: `samp hub` sets up that logger itself
        log.addHandler(handler)
        stack.callback(log.removeHandler, handler)
        stack.enter_context(warnings.catch_warnings())
        warnings.showwarning = _show_warning
        yield


def _ensure_stream(name: str, stack: contextlib.ExitStack) -> None:
    """
    Replace an output stream that was closed before the program started (``>&-``).

    Python sets such a stream to None, and the next socket would get its descriptor.
    """
    if getattr(sys, name) is None:
        setattr(sys, name, stack.enter_context(open(os.devnull, "w")))  # noqa: SIM115
        stack.callback(setattr, sys, name, None)


def _show_warning(message: Warning | str, *_rest: object, **_more: object) -> None:
    print_notice(str(message))
