# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``samp completion`` prints the script with which a shell completes commands, options, names of clients, and MTypes.

The script calls ``samp _complete`` with the words up to the cursor, and gets a line for each candidate: the text, a tab
and a description. The lines ``:files`` and ``:dirs`` make the shell complete paths itself. If no hub is running, or it
does not respond in time, no names are offered and no error is shown.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from ..errors import SAMPError
from .arguments import CONSENT_CHOICES, Command
from .main import COMMANDS as ALL_COMMANDS
from .main import load_command
from .output import Status, help_epilog

_EPILOG = help_epilog(
    """\
  source <(samp completion bash)     in ~/.bashrc
  source <(samp completion zsh)      in ~/.zshrc, after compinit
  samp completion fish | source      in ~/.config/fish/config.fish
""",
    {0: ""},
)

#: Seconds to wait for the hub's list of clients.
HUB_TIMEOUT = 1.0

_BASH = r"""# completion of samp for bash: source <(samp completion bash)
_samp() {
    local line word=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :files) compopt -o default ;;
            :dirs) compopt -o dirnames ;;
            *)
                line=${line%%$'\t'*}
                # within quotes readline needs the text as it is
                [[ $word == [\"\']* ]] || printf -v line %q "$line"
                COMPREPLY+=("$line")
                ;;
        esac
    done < <("${COMP_WORDS[0]}" _complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _samp samp
"""

_ZSH = r"""#compdef samp
# completion of samp for zsh: source <(samp completion zsh), after compinit
_samp() {
    local line
    local -a found
    for line in ${(f)"$(${(Q)words[1]} _complete "${(@)words[2,CURRENT]}" 2>/dev/null)"}; do
        case $line in
            :files) _files ;;
            :dirs) _files -/ ;;
            *) found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
        esac
    done
    (( $#found )) && _describe -t values samp found
}
if [[ $funcstack[1] == _samp ]]; then
    _samp "$@"
else
    compdef _samp samp
fi
"""

_FISH = r"""# completion of samp for fish: samp completion fish | source
function __samp_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] _complete $words[2..-1] 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path (commandline -ct)
            case :dirs
                __fish_complete_directories (commandline -ct)
            case '*'
                echo $line
        end
    end
end
complete -c samp -f -a '(__samp_complete)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

#: MTypes that users send, offered even if no client is connected.
_MTYPES = (
    *("bibcode.load", "coord.get.sky", "coord.pointAt.sky", "coverage.load.moc.fits", "image.load.fits"),
    *("samp.app.ping", "spectrum.load.ssa-generic", "table.highlight.row", "table.load.cdf", "table.load.fits"),
    *("table.load.votable", "table.select.rowList", "voresource.loadlist"),
)
#: The arguments whose values the shell completes, by name.
_FILES = {**dict.fromkeys(("file", "lockfile", "log_output", "record", "recording"), ":files"), "output": ":dirs"}
#: Names that need no special quoting in any of the shells; a client with another name is offered by its id.
_PLAIN_NAME = re.compile(r"\w[\w .,+()@#*/-]*")


class Candidate(NamedTuple):
    """A possible completion of a word."""

    text: str
    description: str = ""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=list(_SCRIPTS), help="the shell")


def _run(options: argparse.Namespace) -> Status:
    print(_SCRIPTS[options.shell], end="")
    return Status.OK


def complete(words: Sequence[str]) -> Status:
    """Print the candidates for the last word; `words` is the command line up to the cursor, without ``samp``."""
    for candidate in candidates(words):
        print("\t".join(candidate).rstrip("\t"))
    if any(thread.name == "samp-completion" for thread in threading.enumerate()):
        sys.stdout.flush()
        os._exit(Status.OK)  # the hub hangs, and the cleanup at exit would wait for it
    return Status.OK


def candidates(words: Sequence[str]) -> list[Candidate]:
    """
    Find the candidates for the last word.

    Bash passes ``--to=x`` as three words. A word may contain the quotes and backslashes that the user types.
    """
    *before, current = words or [""]
    current = "" if current == "=" else current.replace("\\", "").lstrip("\"'")
    before = [word for word in before if word != "="]
    if not before:
        commands = [Candidate(name, text) for name, (_, text) in ALL_COMMANDS.items()]
        return _fitting([*commands, Candidate("--help"), Candidate("--version")], current)
    if before[0] not in ALL_COMMANDS:
        return []
    _, parser = load_command(before[0])
    option, positional = _expected(parser, before[1:])
    name, equals, value = current.partition("=")
    if equals and name in parser._option_string_actions:
        found = _fitting(_values(parser._option_string_actions[name]), value)
        return [Candidate(f"{name}={each.text}", each.description) for each in found]
    found = []
    if current.startswith("-") and (option is None or option.nargs is not None):
        found += _options(parser)
    action = option if option is not None else positional
    if action is not None:
        found += _values(action)
    return _fitting(found, current)


def _fitting(found: Iterable[Candidate], beginning: str) -> list[Candidate]:
    wanted = beginning.casefold()
    return [each for each in found if each.text.startswith(":") or each.text.casefold().startswith(wanted)]


def _expected(
    parser: argparse.ArgumentParser, words: Iterable[str]
) -> tuple[argparse.Action | None, argparse.Action | None]:
    """Return the option whose value comes next, if any, and the next positional argument."""
    positionals = [action for action in parser._actions if not action.option_strings]
    option = None
    for word in words:
        if word.startswith("-"):
            action = parser._option_string_actions.get(word)  # None for --option=value, which needs no other value
            option = action if action is not None and action.nargs != 0 else None
        elif option is not None:
            option = option if option.nargs == "+" else None
        elif positionals and positionals[0].nargs not in {"*", "+"}:
            del positionals[0]
    return option, positionals[0] if positionals else None


def _options(parser: argparse.ArgumentParser) -> Iterator[Candidate]:
    for action in parser._actions:
        if action.option_strings and action.help != argparse.SUPPRESS:
            text = (action.help or "") % {**vars(action), "prog": parser.prog}
            yield Candidate(action.option_strings[-1], " ".join(text.split())[:80])


def _values(action: argparse.Action) -> list[Candidate]:
    """Return the possible values of an argument."""
    choices = CONSENT_CHOICES if action.dest == "web_consent" else action.choices
    if choices:
        return [Candidate(str(choice)) for choice in choices]
    if action.dest in _FILES:
        return [Candidate(_FILES[action.dest])]
    if action.dest == "to":
        return list(_names(_ask_hub()))
    if action.dest in {"mtype", "pattern", "web_mtypes"}:
        found = {mtype for entry in _ask_hub() for mtype in entry["subscriptions"] if _PLAIN_NAME.fullmatch(mtype)}
        if action.dest == "mtype":  # no wildcards, and no MTypes that only the hub sends
            found = {mtype for mtype in found if "*" not in mtype and not mtype.startswith("samp.hub.")}
        return [Candidate(mtype) for mtype in sorted(found | set(_MTYPES))]
    return []


def _names(entries: Sequence[dict[str, Any]]) -> Iterator[Candidate]:
    """Yield the name of each client, or its id if the name is not suitable."""
    names = [str(entry["name"]) for entry in entries]
    for entry, name in zip(entries, names, strict=True):
        if _PLAIN_NAME.fullmatch(name) and names.count(name) == 1:
            yield Candidate(name, entry["id"])
        else:
            yield Candidate(entry["id"], name if _PLAIN_NAME.fullmatch(name) else "")


def _ask_hub() -> list[dict[str, Any]]:
    """Return the descriptions of the other clients; none if no hub is running, or it does not respond in time."""
    # here, because most completions need no client
    from .client_session import connected_client  # noqa: PLC0415
    from .list import describe_client  # noqa: PLC0415

    result: SimpleQueue[list[dict[str, Any]]] = SimpleQueue()

    def ask() -> None:
        found = []
        with (
            suppress(SAMPError),  # completion must not print error messages
            connected_client("samp completion", "Completes a command line") as client,
        ):
            ids = set(client.get_registered_clients()) - {client.client.hub_id}
            found = [entry for each in sorted(ids) if (entry := describe_client(client, each)) is not None]
        result.put(found)

    threading.Thread(target=ask, name="samp-completion", daemon=True).start()
    try:
        return result.get(timeout=HUB_TIMEOUT)
    except Empty:
        return []


COMMANDS = {"completion": Command(_add_arguments, _run, _EPILOG)}
