"""A base that was touched is made again by the command that made it, and what was touched is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.terminal import Tunesmith
from tunesmith.memory.files import verify

pytestmark = pytest.mark.heavy


def add_a_file(base: Path) -> None:
    (base / ".DS_Store").write_text("a file manager was here")


def change_the_weights(base: Path) -> None:
    weights = base / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")


def lose_the_manifest(base: Path) -> None:
    (base / "manifest.json").unlink()


@pytest.mark.parametrize("damage", [add_a_file, change_the_weights, lose_the_manifest])
def test_a_damaged_base_is_set_aside_and_made_again(
    tunesmith: Tunesmith, model_folder: Path, damage: Callable[[Path], None]
) -> None:
    command = ("base", "--model", str(model_folder), "--yes")
    first = tunesmith.json(*command)["result"]
    base = Path(first["path"])
    assert first["damaged_copy"] == "" and base.stat().st_mode & 0o222 == 0
    base.chmod(0o755)
    damage(base)
    files = sorted(file.name for file in base.iterdir())

    again = tunesmith.json(*command)
    assert again["status"] == "done", again
    assert (again["result"]["path"], again["result"]["sha256"]) == (str(base), first["sha256"])
    assert verify(base, first["sha256"])
    aside = Path(again["result"]["damaged_copy"])
    assert aside.parent == base.parent and sorted(file.name for file in aside.iterdir()) == files
    log = tunesmith.home / "runs" / again["run"] / again["step"] / "worker.log"
    assert str(aside) in log.read_text()
