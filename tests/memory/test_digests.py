"""A large file that nobody may write is hashed once, and again after anything happened to it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.memory import digests
from tunesmith.memory.digests import Digests
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import seal, verify, write_protect

SIZE = (1 << 20) + 17
TICK_S = 0.03
"""Longer than a tick of any kernel's clock for files."""


class Shard:
    """A write-protected file in a sealed folder, hashed well after it was made, and how often it was read since."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.home, self.reads = folder / "models" / "m" / "model.safetensors", folder, 0
        self.path.parent.mkdir(parents=True)
        self.path.write_bytes(os.urandom(SIZE))
        self.held = self.path.open("r+b", buffering=0)
        self.sealed = seal(self.path.parent)["sha256"]
        write_protect(self.path.parent)
        monkeypatch.setattr(digests, "sha256_file", self._read)
        self.later(monkeypatch, 60)

    def _read(self, path: Path) -> str:
        self.reads += path == self.path
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def later(self, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
        now = time.time_ns
        monkeypatch.setattr(digests.time, "time_ns", lambda: now() + seconds * 10**9)

    def digest(self) -> str:
        return Digests(self.home).sha256(self.path)

    def writable(self) -> None:
        self.path.chmod(0o644)
        self.path.parent.chmod(0o755)


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shard:
    return Shard(tmp_path, monkeypatch)


def as_it_was(shard: Shard, change: Callable[[Path], object]) -> None:
    """A change by somebody who puts the time and the write bits back afterwards."""
    before = shard.path.stat()
    shard.writable()
    change(shard.path)
    os.utime(shard.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    shard.path.chmod(0o444)


def flipped(at: int) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1]))

    return change


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(os.urandom(SIZE))
    other.replace(path)


CHANGES: dict[str, Callable[[Shard], object]] = {
    **{f"a bit at {at}": lambda shard, at=at: as_it_was(shard, flipped(at)) for at in (0, 1, SIZE // 2, SIZE - 1)},
    "another size": lambda shard: as_it_was(shard, lambda path: os.truncate(path, SIZE - 1)),
    "another file": lambda shard: as_it_was(shard, replaced),
    "a write through a handle from before": lambda shard: shard.held.write(b"\0"),
    "touched": lambda shard: shard.path.touch(),
    "a time of long ago": lambda shard: os.utime(shard.path, (1, 1)),
    "another name for it": lambda shard: (shard.path.parent.parent / "link").hardlink_to(shard.path),
    "chmod there and back": lambda shard: as_it_was(shard, lambda path: None),
    "moved away and back": lambda shard: shard.path.rename(shard.path.with_name("away")).rename(shard.path),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_happens_to_a_file_it_is_read_again(shard: Shard, change: Callable[[Shard], object]) -> None:
    first = shard.digest()
    assert (shard.digest(), shard.reads) == (first, 1)
    time.sleep(TICK_S)
    change(shard)
    assert shard.digest() == hashlib.sha256(shard.path.read_bytes()).hexdigest()
    assert shard.reads == 2


def test_a_file_that_may_be_written_is_read_every_time(shard: Shard) -> None:
    for mode in (0o644, 0o464, 0o446):
        shard.path.chmod(mode)
        before = shard.reads
        assert shard.digest() == shard.digest() and shard.reads == before + 2


@pytest.mark.parametrize("seconds", [-60, -120], ids=["just changed", "changed in the future"])
def test_what_was_changed_when_it_was_hashed_or_later_is_not_remembered(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """A write in the same tick of the disk's clock would show the same time, and so would one before the clock was set
    back."""
    shard.later(monkeypatch, seconds)
    assert shard.digest() == shard.digest() and shard.reads == 2


def test_what_lies_on_another_machines_disk_is_read_every_time(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    nfs = 0x6969
    assert nfs not in digests._LOCAL
    monkeypatch.setattr(digests, "_LOCAL", frozenset({nfs}))
    assert shard.digest() == shard.digest() and shard.reads == 2


def test_the_same_inode_of_another_device_is_another_file(shard: Shard) -> None:
    known, seen = shard.home / "digests.json", shard.path.stat()
    first = shard.digest()
    [(key, entry)] = json.loads(known.read_bytes()).items()
    known.write_text(json.dumps({f"{seen.st_dev + 1}:{seen.st_ino}": [*entry[:-1], "0" * 64]}))
    assert key == f"{seen.st_dev}:{seen.st_ino}" and shard.digest() == first


@pytest.mark.parametrize("text", ["", "{", "[]", '{"1:2": 3}', "null"])
def test_a_memory_that_cannot_be_read_or_written_costs_a_hash(shard: Shard, text: str) -> None:
    known = shard.home / "digests.json"
    known.write_text(text)
    assert shard.digest() == shard.digest() and shard.reads == 1
    known.unlink()
    known.mkdir()
    assert shard.digest() == shard.digest() and shard.reads == 3


def test_verifying_reads_every_byte_unless_it_is_given_the_memory(shard: Shard) -> None:
    memory = Digests(shard.home)
    for _ in range(3):
        verify(shard.path.parent, shard.sealed, sha256_of=memory.sha256)
    assert shard.reads == 1
    known = shard.home / "digests.json"
    [(key, entry)] = json.loads(known.read_bytes()).items()
    known.write_text(json.dumps({key: [*entry[:-1], "0" * 64]}))
    with pytest.raises(StepFailed, match="its sha256 differs"):
        verify(shard.path.parent, shard.sealed, sha256_of=memory.sha256)
    verify(shard.path.parent, shard.sealed)
    verify(shard.path.parent, shard.sealed, sha256_of=memory.hashed)
    verify(shard.path.parent, shard.sealed, sha256_of=memory.sha256)
