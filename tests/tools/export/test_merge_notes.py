"""Which shards a cut merge goes on from: those that reached the disk, of this very base and adapter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunesmith.memory.files import seal
from tunesmith.tools.export.merge_job import _Whole


@pytest.fixture
def made_from(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A base, an adapter, and a folder with two shards, of which the first is noted."""
    base, adapter, out = (tmp_path / name for name in ("base", "adapter", "merged"))
    for folder in (base, adapter, out):
        folder.mkdir()
    (base / "config.json").write_text("{}")
    seal(base)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (adapter / name).write_text("one")
    whole = _Whole(base, adapter, out)
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (out / name).write_text(name)
    whole.add(out / "model-1.safetensors")
    return base, adapter, out


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_shard_that_may_not_have_reached_the_disk_is_made_again(made_from: tuple[Path, Path, Path]) -> None:
    assert _Whole(*made_from).names == names(made_from[2]) == ["model-1.safetensors"]


def test_a_noted_shard_that_is_gone_is_made_again(made_from: tuple[Path, Path, Path]) -> None:
    (made_from[2] / "model-1.safetensors").unlink()
    assert _Whole(*made_from).names == [] == names(made_from[2])


@pytest.mark.parametrize("changed", ["adapter_model.safetensors", "adapter_config.json", "base"])
def test_what_was_made_from_others_is_removed(made_from: tuple[Path, Path, Path], changed: str) -> None:
    base, adapter, out = made_from
    if changed == "base":
        (base / "config.json").write_text("[]")
        (base / "manifest.json").unlink()
        seal(base)
    else:
        (adapter / changed).write_text("other")
    assert _Whole(base, adapter, out).names == [] == names(out)
    assert _Whole(base, adapter, out).names == []


def test_a_shard_is_noted_after_its_bytes_and_its_name_reached_the_disk(
    made_from: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, shard = _Whole(*made_from), made_from[2] / "model-2.safetensors"
    shard.write_text("two")
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.fstat(fd).st_ino))
    whole.add(shard)
    assert flushed[:2] == [shard.stat().st_ino, shard.parent.stat().st_ino] and len(flushed) > 2

    def full(_fd: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", full)
    (third := made_from[2] / "model-3.safetensors").write_text("three")
    with pytest.raises(OSError, match="full"):
        whole.add(third)
    monkeypatch.undo()
    assert _Whole(*made_from).names == ["model-1.safetensors", "model-2.safetensors"]
