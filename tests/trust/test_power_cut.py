"""A power cut leaves what was synced and nothing else: a folder that has its manifest then is whole.

A disk is kept beside the real one that forgets: of a file it has the bytes of its last sync, of a folder the names that
stood in it then. What it holds after each sync is what a cut at that moment leaves.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.memory import files

_FSYNC = os.fsync


class Disk:
    """What of a folder is safe; the folder itself is, and what lay in it at first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.contents: dict[int, bytes] = {}
        """Inode of a file → its bytes."""
        self.names: dict[int, dict[str, tuple[int, bool]]] = {}
        """Inode of a folder → its names, each with an inode and whether that is a folder."""
        self.cuts = 0
        for path in (root, *root.rglob("*")):
            self.keep(path)

    def keep(self, path: Path) -> None:
        inode = path.stat().st_ino
        if path.is_dir():
            self.names[inode] = {one.name: (one.stat().st_ino, one.is_dir()) for one in path.iterdir()}
        else:
            self.contents[inode] = path.read_bytes()

    def left(self, inode: int, target: Path) -> None:
        """Write what is safe of a folder."""
        target.mkdir()
        for name, (child, is_folder) in self.names.get(inode, {}).items():
            if is_folder:
                self.left(child, target / name)
            else:
                (target / name).write_bytes(self.contents.get(child, b""))


@pytest.fixture
def after_each_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], None]], Path]:
    """Act in a folder, look at what a cut after each sync leaves, and return where the last of that lies."""
    root, left = tmp_path / "disk", tmp_path / "left"
    root.mkdir()

    def act(make: Callable[[Path], None]) -> Path:
        disk = Disk(root)

        def synced(fd: int) -> None:
            _FSYNC(fd)
            path = Path(f"/proc/self/fd/{fd}").readlink()
            if path.is_relative_to(root):
                disk.keep(path)
                disk.cuts += 1
                shutil.rmtree(left, ignore_errors=True)
                disk.left(root.stat().st_ino, left)
                for manifest in left.rglob(files.MANIFEST):
                    files.verify(manifest.parent)

        monkeypatch.setattr(os, "fsync", synced)
        make(root)
        monkeypatch.setattr(os, "fsync", _FSYNC)
        assert disk.cuts
        return left

    return act


def fill(folder: Path) -> None:
    (folder / "sub" / "deep").mkdir(parents=True)
    for name in ("a", "sub/b", "sub/deep/c"):
        (folder / name).write_bytes(b"x" * 5000)


def test_a_folder_that_was_sealed_is_whole_after_a_power_cut_at_any_moment(
    after_each_cut: Callable[[Callable[[Path], None]], Path],
) -> None:
    def make(root: Path) -> None:
        (root / "made").mkdir()
        fill(root / "made")
        files.seal(root / "made")

    left = after_each_cut(make)
    assert set(files.verify(left / "made")["files"]) == {"a", "sub/b", "sub/deep/c"}


def test_a_folder_that_was_published_is_whole_after_a_power_cut_at_any_moment(
    after_each_cut: Callable[[Callable[[Path], None]], Path],
) -> None:
    left = after_each_cut(lambda root: files.publish_folder(root / "made", fill) and None)
    assert set(files.verify(left / "made")["files"]) == {"a", "sub/b", "sub/deep/c"}


def test_a_folder_of_the_users_own_is_whole_after_a_power_cut(
    after_each_cut: Callable[[Callable[[Path], None]], Path],
) -> None:
    left = after_each_cut(lambda root: files.new_folder(root, "own", fill) and None)
    assert {path.stat().st_size for path in (left / "own").rglob("[abc]")} == {5000}


@pytest.mark.parametrize("there", [False, True])
def test_a_file_is_the_old_one_or_the_new_after_a_power_cut(
    after_each_cut: Callable[[Callable[[Path], None]], Path], tmp_path: Path, there: bool
) -> None:
    if there:
        (tmp_path / "disk" / "file").write_bytes(b"old")
    left = after_each_cut(lambda root: files.atomic_write(root / "file", b"new" * 5000))
    assert (left / "file").read_bytes() == b"new" * 5000
