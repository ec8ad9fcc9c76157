# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""TOPCAT, whose hub accepts no uploads, reads a file that a kernel has published in its Jupyter server."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from astropy.table import Table

from pyvo.samp import SAMPIntegratedClient
from tests.jupyter.servers import JupyterServer, environment_of

from .conftest import Run
from .programs import Screen, wait_for_hub
from .samples import write_table
from .test_topcat import assert_same, load

pytestmark = pytest.mark.timeout(180)


def test_topcat_reads_from_a_jupyter_server(
    home: Path, connect: Callable[..., SAMPIntegratedClient], show: Run, screen: Screen,
    tmp_path_factory: pytest.TempPathFactory, artefacts: Path,
) -> None:
    """TOPCAT has no cookie and no token of the server. The URL is enough until the kernel withdraws the file."""
    pytest.importorskip("jupyter_server", reason="jupyter_server is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    show("topcat", "-hub")
    directory = tmp_path_factory.mktemp("jupyter")
    login = "--ServerApp.allow_unauthenticated_access=False"
    with JupyterServer(environment_of(directory), directory, login) as server:
        table, url = write_table(directory)
        kernel = server.start_kernel()
        path = url.removeprefix("file://")
        code = f"from pyvo.samp.jupyter_server import publish_file; p = publish_file({path!r}); print(p.url_path)"
        published = server.url + server.run(kernel, code).strip()
        wait_for_hub(home)
        client = connect("sender")
        topcat = client.wait_for("topcat", 60, "table.load.votable").id
        load(client, topcat, published)
        response = client.ecall_and_wait(topcat, "table.get.stil", 20, format="votable")
        assert_same(Table.read(response["samp.result"]["url"], format="votable"), table)
        screen.screenshot(artefacts / "topcat-jupyter.png")
        server.run(kernel, "p.withdraw()")
        response = client.ecall_and_wait(topcat, "table.load.votable", 60, url=published, name="gone")
        assert response["samp.status"] == "samp.error"
