"""The architecture page names existing files, functions and packages, and shows the layers of the package."""

from __future__ import annotations

import ast
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pyvo.samp import SAMPIntegratedClient
from pyvo.samp.testing import running_hub
from tests.package_structure import LAYERS, PACKAGE, modules, parse

from .examples import DOCS, load_module

PAGE = DOCS / "contributing" / "architecture.rst"
TEXT = PAGE.read_text(encoding="utf-8")
#: A file, and the names after it that it defines.
REFERENCE = re.compile(r"``([a-z0-9_/]+\.py)``((?:(?: and| or|,)?\s+``[A-Za-z_][\w.]*``)*)")
#: Paths outside the package.
OTHERS = ("tests/", "docs/")


def references() -> list[tuple[str, str]]:
    found = []
    for path, names in REFERENCE.findall(TEXT):
        if not path.startswith(OTHERS):
            found += [(path, name) for name in re.findall(r"``([\w.]+)``", names)] or [(path, "")]
    return sorted(set(found))


def defined(path: str) -> set[str]:
    """Return the names that a module defines: functions, classes, methods and constants."""
    found = set()
    for node in parse(PACKAGE / path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}.{method.name}" for method in methods}
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize(("path", "name"), references())
def test_reference_exists(path: str, name: str) -> None:
    assert (PACKAGE / path).exists()
    assert not name or name in defined(path)


def test_references_are_found() -> None:
    assert len(references()) > 50


def test_every_package_has_a_table() -> None:
    included = set(re.findall(r"include:: ../api/modules-(\w+)\.txt", TEXT))
    assert included == {path.name for path in load_module(DOCS / "describe.py").packages()}


def test_picture_has_all_packages() -> None:
    """The picture shows all packages, and all of them belong to a layer."""
    picture = TEXT.partition(".. code-block:: none")[2].partition("\nThe event loop")[0]
    exist = {name.partition(".")[0] for name in modules() if "." in name}
    drawn = set(re.findall(r"\w+", picture))
    assert exist <= drawn
    assert exist <= {name for layer in LAYERS for name in layer}


#: What the numbered steps name besides the way of a message between two clients of the Standard Profile.
OTHER_WAYS = {"MessagingClient.reply", "CallbackPuller", "PullQueue.put", "WebRequestHandler.reject"}
#: Not called at that point: two are classes that only hold or inherit something, the others were called before.
NOT_TRACED = {
    *("Delivery", "SAMPIntegratedClient", "HandlerTable.bind_response", "XMLRPCClient.post"),
    "MessagingClient.call_and_wait",
}
#: What only ``callAndWait`` calls.
WAITING = {"HubOperations.call_and_wait", "DeferredResponse", "XMLRPCHandler"}


def steps(first: int, last: int) -> list[tuple[str, str]]:
    """Return the functions and classes that some steps of the way of a message name, in order."""
    way = TEXT.partition("The way of a message\n===")[2].partition("The way over a bridge")[0]
    parts = re.split(r"\n(\d+)\. ", way)
    text = "".join(body for number, body in zip(parts[1::2], parts[2::2], strict=True) if first <= int(number) <= last)
    found = [(path, name) for path, names in REFERENCE.findall(text) for name in re.findall(r"``([\w.]+)``", names)]
    return [(path, name) for path, name in found if name not in OTHER_WAYS | NOT_TRACED]


@pytest.fixture
def calls() -> Iterator[list[tuple[str, str]]]:
    """Record the calls of functions of the package, in all threads that start later and in this one."""
    found: list[tuple[str, str]] = []

    def record(frame: FrameType, event: str, _argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            found.append((path.relative_to(PACKAGE).as_posix(), frame.f_code.co_qualname))

    before = sys.getprofile()
    threading.setprofile(record)
    sys.setprofile(record)
    yield found
    sys.setprofile(before)
    threading.setprofile(None)


@pytest.mark.parametrize(
    ("first", "last", "send"),
    [
        (1, 11, lambda client, other: client.enotify(other, "x-way.test")),
        (12, 14, lambda client, other: client.ecall(other, "tag", "x-way.test")),
        (12, 13, lambda client, other: client.ecall_and_wait(other, "x-way.test", 10)),
    ],
    ids=["notify", "call", "callAndWait"],
)
def test_way_of_a_message(
    calls: list[tuple[str, str]], first: int, last: int, send: Callable[[SAMPIntegratedClient, str], object]
) -> None:
    """The functions in the numbered steps are called in this order."""
    done = threading.Event()
    with running_hub(), SAMPIntegratedClient("recipient") as other, SAMPIntegratedClient("sender") as client:

        @other.on("x-way.test")
        def handle() -> None:
            if first == 1:
                done.set()

        client.bind_receive_response("tag", lambda *_: done.set())
        calls.clear()
        send(client, str(other.get_public_id()))
        if last != 13:
            assert done.wait(10)
        trace = list(calls)
    place, missing = 0, []
    for path, name in steps(first, last):
        if last == 14 and name in WAITING:
            continue
        found = (number for number, (file, function) in enumerate(trace[place:], place)
                 if file == path and (function == name or function.startswith(f"{name}.")))
        number = next(found, None)
        if number is None:
            missing.append(name)
        else:
            place = number
    assert not missing, f"not called at this point: {missing}"
