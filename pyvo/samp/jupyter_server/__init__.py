# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
An extension of Jupyter Server that serves files of kernels to programs on the user's computer.

A program such as TOPCAT, on the user's computer, reads a file that a kernel of a JupyterHub has *published*. The
program has no account there and sends no cookie: the token in the URL is the permission. `publications` runs in the
kernel, and does not need Jupyter; `handler` runs in the server.

The hub of this package needs no such URL, because the page of the notebook can upload the file to it.
"""

from __future__ import annotations

from typing import Any

from .publications import DIRECTORY, Publication, create_publication, publish_file, remove_expired

__all__ = ["DIRECTORY", "Publication", "create_publication", "publish_file", "remove_expired"]


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """Return the module of the extension to Jupyter Server."""
    return [{"module": "pyvo.samp.jupyter_server"}]


def _load_jupyter_server_extension(serverapp: Any) -> None:
    """Start the extension; called by Jupyter Server."""
    from .handler import start_extension  # noqa: PLC0415 - a kernel may have no Jupyter Server

    start_extension(serverapp)
