"""
The examples of the README and of docstrings run. `tests.docs.examples` says why pytest-doctestplus cannot run them.

A stand-in replaces TOPCAT.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from astropy.table import Table

from .examples import DOCS, docstring_examples, load_module, pages

Desk = load_module(DOCS / "stand_ins.py").Desk


@pytest.fixture
def desk(isolated: Path) -> Iterator[Any]:
    """A hub, and programs that stand in for others."""
    desk = Desk()
    yield desk
    desk.close()


def test_doctestplus_runs_the_pages(pytestconfig: pytest.Config) -> None:
    """The settings for pytest-doctestplus are there; without them no example of a page would run."""
    assert pytestconfig.getini("doctest_plus")
    assert pytestconfig.getini("doctest_rst")
    assert "docs" in pytestconfig.getini("testpaths")
    assert not [page.name for page in pages() if re.search(r"^ *\.\. >>>", page.read_text(), re.MULTILINE)]


def test_readme(desk: Any) -> None:
    """The first example of the README runs."""
    topcat = desk.open("topcat")
    text = (DOCS.parent / "README.rst").read_text()
    match = re.search(r"^    from astropy.*?(?=^\S)", text, re.DOTALL | re.MULTILINE)
    assert match is not None
    exec(textwrap.dedent(match[0]), {})
    assert [len(table) for table in topcat.received] == [2]


#: Needs the page of a notebook: ``tests/interop/test_gallery.py`` runs the same lines in JupyterLab.
IN_A_NOTEBOOK = {"pyvo.samp.jupyter.relay.HubRelay"}


@pytest.mark.parametrize("name", sorted(docstring_examples().keys() - IN_A_NOTEBOOK))
@pytest.mark.filterwarnings("ignore:No client is subscribed")
def test_docstring_examples(name: str, desk: Any) -> None:
    """The examples of docstrings run; a table and a hub with programs are defined for them."""
    viewer = desk.open("topcat")
    code = docstring_examples()[name]
    is_coroutine = "async with" in code or "await " in code
    flags = 0x2000 if is_coroutine else 0  # PyCF_ALLOW_TOP_LEVEL_AWAIT
    names: dict[str, object] = {"table": Table({"a": [1, 2]}), "desk": desk}
    compiled = compile("from __future__ import annotations\nfrom pyvo.samp import *\n" + code, name, "exec", flags)
    if is_coroutine:
        # such an example may wait for messages forever: it runs for at most 2 s, and must send something to the viewer
        async def main() -> None:
            task = asyncio.ensure_future(eval(compiled, names))
            done, _ = await asyncio.wait([task], timeout=2)
            if not done:
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert viewer.received

        asyncio.run(main())
    else:
        exec(compiled, names)


def test_there_are_examples() -> None:
    """Examples are found: without any, the tests above would succeed."""
    assert len(pages()) > 3
    assert docstring_examples()
    assert inspect.getdoc(Desk)
