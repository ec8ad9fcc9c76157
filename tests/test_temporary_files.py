# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The directory for files that other programs read is removed, however its process ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pyvo.samp.temporary_files import PREFIX, make_private_dir

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no locks on directories")


def aged(directory: Path) -> Path:
    os.utime(directory, (1e9, 1e9))
    return directory


def test_directory_is_private_and_can_be_removed() -> None:
    directory, remove = make_private_dir()
    assert directory.stat().st_mode & 0o777 == 0o700
    (directory / "file").write_text("x")
    remove()
    assert not directory.exists()


def test_directory_of_a_dead_process_is_removed(python_environment: dict[str, str]) -> None:
    """The next process of the user removes it, and removes nothing else."""
    code = (
        "import os; from pyvo.samp.temporary_files import make_private_dir\n"
        "directory, _ = make_private_dir(); (directory / 'file').write_text('x'); print(directory, flush=True)\n"
        "os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=python_environment, capture_output=True, text=True, timeout=30, check=True
    )
    dead = aged(Path(done.stdout.strip()))
    assert dead.exists()
    living, remove = make_private_dir()
    aged(living)
    assert not dead.exists()
    temporary = Path(tempfile.gettempdir())
    (young := temporary / f"{PREFIX}young").mkdir()
    (elsewhere := temporary / "elsewhere").mkdir()
    (link := temporary / f"{PREFIX}link").symlink_to(aged(elsewhere))
    second, remove_second = make_private_dir()
    assert living.exists()
    assert young.exists()
    assert elsewhere.exists()
    remove()
    remove_second()
    assert not second.exists()
    link.unlink()
    young.rmdir()
    elsewhere.rmdir()


def test_a_forked_child_does_not_remove_the_directory() -> None:
    """The directory belongs to the parent process."""
    directory, remove = make_private_dir()
    child = os.fork()
    if not child:
        remove()
        os._exit(0)
    os.waitpid(child, 0)
    assert directory.exists()
    remove()
