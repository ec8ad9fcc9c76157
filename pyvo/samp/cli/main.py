# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``samp``, or ``python -m pyvo.samp``.

`COMMANDS` is the table of subcommands. Each is a module with ``add_arguments(parser)``, ``run(options)``, which returns
the exit status, and ``EPILOG``, the end of its help. Only the module of the command that was typed is imported, so
that ``samp list`` does not wait for what ``samp send`` needs.
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
from typing import NoReturn

from ..errors import SAMPError, SAMPHubError
from ..process_events import signals_as_exit
from .output import CleanFormatter, CommandError, Status, sanitize

__all__ = ["COMMANDS", "main", "run_command"]

#: Subcommands: the module of each, and what it does.
COMMANDS = {
    "hub": ("hub", "Run a hub until it is stopped by ^C."),
    "list": ("list", "List who is connected, and what they take."),
    "send": ("send", "Send a table, image, spectrum or coverage to other programs."),
    "receive": ("receive", "Write what other programs send to files."),
    "point": ("point", "Point other programs at a position in the sky."),
    "call": ("call", "Send a message and show the answers."),
    "notify": ("notify", "Send a message that needs no answer."),
    "snoop": ("snoop", "Show messages as they come."),
    "doctor": ("doctor", "Find out why programs do not find each other, and what to do."),
    "demo": ("demo", "Send a table from one program to another, and tell what happens."),
}

EPILOG = """\
examples:
  samp list                        who is there
  samp send catalogue.fits         to every program that takes it
  samp point 05:34:31.9 +22:00:52
  samp doctor                      when something does not work

`samp COMMAND --help` shows the options of a command, and its exit statuses.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the program.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line without the program's name; by default the one that was typed.

    Returns
    -------
    int
        Exit status, see `Status`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(lambda: _parse(words))


def run_command(parse: Callable[[], argparse.Namespace]) -> int:
    """
    Run what was typed, and turn whatever comes of it into words and an exit status.

    Parameters
    ----------
    parse : callable
        Reads the command line; the result has ``run``, which is called with it.

    Returns
    -------
    int
        Exit status, see `Status`.
    """
    with _output_setup(), signals_as_exit():
        try:
            try:
                options = parse()
                return int(options.run(options))
            finally:
                _flush()
        except CommandError as error:
            return _print_error(error, error.status)
        except SAMPHubError as error:
            return _print_error(error, Status.NO_HUB)
        except BrokenPipeError:  # whoever read our output, `head` for one, has had enough: that is no error
            return Status.PIPE_CLOSED
        except (SAMPError, OSError) as error:
            return _print_error(error, Status.FAILED)
        except KeyboardInterrupt:
            return Status.INTERRUPTED


def _flush() -> None:
    """Notice here that output cannot be written, not at the end of the interpreter, which would complain of it."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # something stands in for stdout
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        raise


def _print_error(error: Exception, status: Status) -> Status:
    print(f"samp: {sanitize(str(error), 1000)}", file=sys.stderr)
    return status


def _parse(arguments: list[str]) -> argparse.Namespace:
    if arguments and arguments[0] in COMMANDS:
        return _parse_command(arguments[0], arguments[1:])
    parser = argparse.ArgumentParser(
        prog="samp",
        description="SAMP: let TOPCAT, Aladin, DS9, web pages and Python exchange tables and images.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (_module, text) in COMMANDS.items():
        commands.add_parser(name, help=text)
    return parser.parse_args(arguments)  # which ends here, by help or by an error


def _parse_command(name: str, arguments: list[str]) -> argparse.Namespace:
    module_name, text = COMMANDS[name]
    module = import_module(f".{module_name}", __package__)
    parser = argparse.ArgumentParser(
        prog=f"samp {name}",
        description=text,
        epilog=module.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parser.set_defaults(run=module.run, parser=parser)
    prepare = getattr(module, "prepare", None)
    if prepare is not None:  # for what argparse would misunderstand
        arguments = prepare(arguments)
    if {"-h", "--help"} & set(arguments):  # what comes next makes a mess of the help
        parser.print_help()
        parser.exit()
    # intermixed: `--to topcat` may stand between the MType and its parameters
    return parser.parse_intermixed_args(arguments)


class _Version(argparse.Action):
    """The version is looked up only for who asks for it."""

    def __call__(self, parser: argparse.ArgumentParser, *_rest: object) -> NoReturn:
        from .. import __version__  # noqa: PLC0415

        print(f"samp {__version__}")
        parser.exit()


@contextlib.contextmanager
def _output_setup() -> Iterator[None]:
    """Have warnings and the log shown in lines, and characters that the terminal does not know as escapes."""
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            _ensure_stream(name, stack)
            reconfigure = getattr(getattr(sys, name), "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="backslashreplace")
        handler = logging.StreamHandler()
        handler.setFormatter(CleanFormatter("samp: %(message)s"))
        log = logging.getLogger("pyvo")  # not of pyvo.samp: a hub has a log of its own
        log.addHandler(handler)
        stack.callback(log.removeHandler, handler)
        stack.enter_context(warnings.catch_warnings())
        warnings.showwarning = _show_warning
        yield


def _ensure_stream(name: str, stack: contextlib.ExitStack) -> None:
    """
    Put something in the place of an output stream that was closed before we were started (``>&-``).

    Python has None there, which is no file; and the next socket would get the number of its descriptor.
    """
    if getattr(sys, name) is None:
        setattr(sys, name, stack.enter_context(open(os.devnull, "w")))  # noqa: SIM115
        stack.callback(setattr, sys, name, None)


def _show_warning(message: Warning | str, *_rest: object, **_more: object) -> None:
    print(f"samp: {sanitize(str(message), 1000)}", file=sys.stderr)
