# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Run the notebooks and store them with their output: ``python docs/notebooks/run.py NAME...``, in a checkout."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent

__all__ = ["execute"]


def execute(name: str) -> Any:
    """
    Run a notebook.

    Parameters
    ----------
    name : str
        Its name, without the ending.

    Returns
    -------
    nbformat.NotebookNode
        The notebook with its output; an error in it is raised.
    """
    notebook = nbformat.read(HERE / f"{name}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(HERE)}})
    asyncio.run(client.async_execute())
    return notebook


def store(name: str, notebook: Any) -> None:
    """Write a notebook, without what differs from run to run."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            for kind, text in output.get("data", {}).items():
                output["data"][kind] = re.sub(r' id="table\d+"| at 0x[0-9a-f]+', "", text)
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, HERE / f"{name}.ipynb")


if __name__ == "__main__":
    for chosen in sys.argv[1:]:
        store(chosen, execute(chosen))
