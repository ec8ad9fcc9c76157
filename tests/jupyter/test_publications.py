# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The files that kernels publish, and the files that the server opens."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyvo.samp.jupyter_server import Publication, create_publication, publish_file, remove_expired
from pyvo.samp.jupyter_server.publications import LIFETIME

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "runtime" / "pyvo-samp-data"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "M 31.fits"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def publication(directory: Path, file: Path) -> Publication:
    return publish_file(file, directory=directory)


def age(publication: Publication, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(publication.path.parent, (then, then))


def test_publication(publication: Publication, directory: Path, file: Path) -> None:
    """No other user can enter the directories, and the token cannot be guessed."""
    assert publication.path.read_bytes() == CONTENT
    assert publication.path.samefile(file)
    token = publication.path.parent.name
    assert publication.url_path == f"pyvo-samp/data/{token}/M_31.fits"
    assert len(token) == 43
    for each in (directory, publication.path.parent):
        assert stat.S_IMODE(each.stat().st_mode) == 0o700
    assert publish_file(file, directory=directory).path.parent.name != token


def test_withdraw(publication: Publication, file: Path) -> None:
    """A reader that has opened the file can read it to its end."""
    with publication.path.open("rb") as stream:
        publication.withdraw()
        assert stream.read() == CONTENT
    assert not publication.path.parent.exists()
    publication.withdraw()
    assert file.read_bytes() == CONTENT


def test_a_file_that_cannot_be_linked_is_copied(directory: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(Path, "hardlink_to", fail)
    old = os.umask(0)
    try:
        publication = publish_file(file, "other name.vot.gz", directory)
    finally:
        os.umask(old)
    assert publication.path.name == "other_name.vot.gz"
    assert publication.path.read_bytes() == CONTENT
    assert not publication.path.samefile(file)
    assert stat.S_IMODE(publication.path.stat().st_mode) == 0o600


def test_the_kernel_follows_a_link(directory: Path, file: Path, tmp_path: Path) -> None:
    """The user chooses the file that is published; the server follows no link."""
    link = tmp_path / "link.fits"
    link.symlink_to(file)
    path = publish_file(link, directory=directory).path
    assert not path.is_symlink()
    assert path.read_bytes() == CONTENT


def test_new_file(directory: Path) -> None:
    publication = create_publication("../x/table.vot", directory)
    assert publication.path.parent.parent == directory
    assert publication.path.name == "x_table.vot"
    assert not publication.path.exists()


@pytest.mark.parametrize("name", ["missing", "."])
def test_only_existing_files_can_be_published(directory: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="No such file|Is a directory"):
        publish_file(tmp_path / name, directory=directory)
    assert not directory.exists() or not list(directory.iterdir())


def test_directory_that_others_can_enter(directory: Path) -> None:
    directory.mkdir(parents=True, mode=0o755)
    directory.chmod(0o755)
    with pytest.raises(PermissionError, match="no other user can enter"):
        create_publication("x", directory)


def test_link_in_place_of_the_directory(directory: Path, tmp_path: Path) -> None:
    directory.parent.mkdir()
    directory.symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(PermissionError):
        create_publication("x", directory)


def test_expired_publications_are_removed(
    publication: Publication, directory: Path, file: Path, tmp_path: Path
) -> None:
    """The next publication, or the server, removes the files of a kernel that was killed."""
    age(publication, LIFETIME - 60)
    other = publish_file(file, directory=directory)
    assert publication.path.exists()
    age(publication, LIFETIME + 1)
    age(other, LIFETIME + 1)
    (directory / ("x" * 43)).symlink_to(tmp_path, target_is_directory=True)
    os.utime(directory / ("x" * 43), (0, 0), follow_symlinks=False)
    (directory / "foreign").mkdir()
    os.utime(directory / "foreign", (0, 0))
    remove_expired(directory)
    assert not publication.path.parent.exists()
    assert not other.path.parent.exists()
    assert file.exists()
    assert {each.name for each in directory.iterdir()} == {"x" * 43, "foreign"}


def test_no_directory_yet(directory: Path) -> None:
    remove_expired(directory)
    assert not directory.exists()


SCRIPT = """
import os, sys
from pathlib import Path
from pyvo.samp.jupyter_server import publish_file
publication = publish_file(sys.argv[1], directory=Path(sys.argv[2]))
pid = os.fork()
if not pid:
    sys.exit()  # the child withdraws nothing
os.waitpid(pid, 0)
print(publication.path.exists())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_the_end_of_the_process_withdraws_its_publications(
    directory: Path, file: Path, python_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(file), str(directory)]
    result = subprocess.run(command, env=python_environment, capture_output=True, text=True, check=True)
    assert result.stdout == "True\n"
    assert list(directory.iterdir()) == []


# The files that the server opens


@pytest.fixture
def open_publication():
    pytest.importorskip("jupyter_server", reason="jupyter_server is not installed")
    from pyvo.samp.jupyter_server.handler import open_publication

    return open_publication


@pytest.fixture
def missing(open_publication, directory):
    """Check that a publication is not served."""
    from pyvo.samp.transport.file_serving import FileError

    def check(token: str, name: str) -> None:
        with pytest.raises(FileError) as caught:
            open_publication(directory, token, name, {}).close()
        assert caught.value.status == 404
        assert str(directory) not in str(caught.value)

    return check


def test_file_is_served(open_publication, directory, publication):
    source = open_publication(directory, publication.path.parent.name, publication.path.name, {"range": "bytes=1-3"})
    assert source.read(100) == CONTENT[1:4]
    assert source.read(100) == b""
    source.close()


@pytest.mark.parametrize("name", ["", ".", "..", "../M_31.fits", "/etc/passwd", "x", "M_31.fits/", "M_31.fits\0"])
def test_no_name_leads_to_another_file(missing, publication, name):
    missing(publication.path.parent.name, name)


@pytest.mark.parametrize("token", ["", ".", "..", "x", "x" * 43, "x" * 42 + "/", "../" + "x" * 40])
def test_unknown_token(missing, publication, directory, token):
    (directory / "M_31.fits").write_bytes(b"not published")
    missing(token, "M_31.fits")


@pytest.mark.skipif(os.name == "nt", reason="links and pipes need permissions on Windows")
@pytest.mark.parametrize("kind", ["file", "folder", "pipe", "directory"])
def test_only_regular_files(missing, directory, publication, tmp_path, kind):
    folder, name = publication.path.parent, publication.path.name
    publication.path.unlink()
    if kind == "file":
        publication.path.symlink_to(tmp_path / "M 31.fits")
    elif kind == "folder":
        folder.rmdir()
        target = tmp_path / "elsewhere"
        target.mkdir(mode=0o700)
        (target / name).write_bytes(b"secret")
        folder.symlink_to(target, target_is_directory=True)
    elif kind == "pipe":
        os.mkfifo(publication.path)
    else:
        publication.path.mkdir()
    missing(folder.name, name)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("which", ["file", "folder", "directory"])
def test_files_of_other_users(missing, directory, publication, which):
    path = {"file": publication.path, "folder": publication.path.parent, "directory": directory}[which]
    os.chown(path, 65534, 65534)
    missing(publication.path.parent.name, publication.path.name)


@pytest.mark.parametrize("which", ["folder", "directory"])
def test_directories_that_others_can_enter(missing, directory, publication, which):
    {"folder": publication.path.parent, "directory": directory}[which].chmod(0o711)
    missing(publication.path.parent.name, publication.path.name)


def test_an_expired_publication_is_not_opened(missing, publication):
    age(publication, LIFETIME + 1)
    missing(publication.path.parent.name, publication.path.name)
