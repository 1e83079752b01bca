"""A file that a user names is written whole, for them alone, and over nothing that they did not mean."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write
from tunesmith.tools.core.plain_file import write_private_text


def test_it_is_private_whatever_the_umask_and_whatever_was_there(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = write_private_text(str(tmp_path / "a"), "one")
        path.chmod(0o666)
        write_private_text(str(path), "two", force=True)
    finally:
        os.umask(before)
    assert path.read_text() == "two" and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_one_that_appears_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a"
    monkeypatch.setattr("tunesmith.tools.core.plain_file.writable", lambda name, force: Path(name))
    target.write_text("theirs")
    with pytest.raises(BadInput, match="another program"):
        write_private_text(str(target), "mine")
    assert target.read_text() == "theirs" and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, target: Path) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    atomic_write(tmp_path / "a", "one", mode=0o600, new=True)
    with pytest.raises(FileExistsError):
        atomic_write(tmp_path / "a", "two", new=True)
    assert (tmp_path / "a").read_text() == "one" and [path.name for path in tmp_path.iterdir()] == ["a"]
