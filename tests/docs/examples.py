"""
Find and run the examples that pytest-doctestplus does not run.

pytest-doctestplus runs the examples of all pages with stand-ins for other programs (``docs/conftest.py``). It cannot:

- run a page a second time, with the real programs: `run_page` does, for ``tests/interop/test_docs.py``;
- run code without prompts, as in the README and in docstrings, which readers can paste;
- run coroutines, such as the examples of `AsyncSAMPClient`;
- find docstrings in a namespace package: it would import each module of ``pyvo`` again, under another name.
"""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def load_module(path: Path) -> ModuleType:
    """Load a module by its path, because other distributions also install a package ``docs``."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages() -> list[Path]:
    """Return the pages that have examples with Python's prompt."""
    found = [path for path in sorted(DOCS.rglob("*.rst")) if "_build" not in path.parts and "api" not in path.parts]
    return [path for path in found if ">>> " in path.read_text()]


def run_page(path: Path, desk: Any) -> None:
    """Run all examples of a page in one namespace, including examples in comments."""
    test = doctest.DocTestParser().get_doctest(path.read_text(), {"desk": desk}, path.name, str(path), 0)
    run(test)


def run(test: doctest.DocTest) -> None:
    """Run an example, and fail with the whole report if its output differs."""
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def modules() -> list[ModuleType]:
    """Return all modules of the package."""
    package = importlib.import_module("pyvo.samp")
    names = [info.name for info in pkgutil.walk_packages(package.__path__, "pyvo.samp.")]
    skipped = ["__main__", "_version", "consent_tk"]
    if importlib.util.find_spec("jupyter_server") is None:
        skipped.append("jupyter_server.handler")  # it runs in a Jupyter server
    return [importlib.import_module(name) for name in names if not name.endswith(tuple(skipped))]


def docstring_examples() -> dict[str, str]:
    """Return the code below "Examples" in docstrings, by the name of the object."""
    found: dict[str, str] = {}
    for module in modules():
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", None) != module.__name__:
                continue
            members = {name: thing}
            if inspect.isclass(thing):
                members |= {f"{name}.{key}": value for key, value in vars(thing).items() if callable(value)}
            for title, member in members.items():
                text = inspect.getdoc(member) or ""
                match = re.search(r"^Examples\n-+\n(.*)", text, re.DOTALL | re.MULTILINE)
                if match:
                    found[f"{module.__name__}.{title}"] = _code(match[1])
    return found


def _code(section: str) -> str:
    """Return the literal blocks of a section, without the text between them."""
    lines = [line for line in section.splitlines() if line.startswith("    ") or not line.strip()]
    return textwrap.dedent("\n".join(lines)).strip()
