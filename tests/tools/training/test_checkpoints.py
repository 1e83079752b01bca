"""A checkpoint is whole or is not taken for one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from tests.fixtures.waiting import HANG_S
from tunesmith.tools.training.checkpoints import keep_checkpoint, newest_checkpoint, step_of, whole_checkpoints


def keep(root: Path, step: int, fingerprint: str = "f", best: int = 0) -> Path:
    def write(aside: Path) -> Path:
        folder = aside / "any"
        folder.mkdir()
        (folder / "weights").write_text(str(step))
        return folder

    return keep_checkpoint(root, step, fingerprint, write, best=best)


def test_the_newest_whole_one_of_the_same_settings_is_found(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path, "f") is None
    for step in (9, 10, 100):
        keep(tmp_path, step)
    assert newest_checkpoint(tmp_path, "f") == tmp_path / "checkpoint-100"
    assert newest_checkpoint(tmp_path, "other settings") is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-100"]


def test_the_best_one_stays_however_old_and_goes_when_another_is_better(tmp_path: Path) -> None:
    for step, best, left in ((2, 2, [2]), (4, 2, [2, 4]), (6, 2, [2, 4, 6]), (8, 2, [2, 6, 8]), (10, 10, [8, 10])):
        keep(tmp_path, step, best=best)
        assert sorted(map(step_of, tmp_path.iterdir())) == left
    assert [step_of(one) for one in whole_checkpoints(tmp_path, "f")] == [10, 8]


def test_a_damaged_or_unsealed_one_is_passed_over(tmp_path: Path) -> None:
    keep(tmp_path, 1)
    (keep(tmp_path, 2) / "weights").write_text("x")
    (tmp_path / "checkpoint-3").mkdir()
    assert newest_checkpoint(tmp_path, "f") == tmp_path / "checkpoint-1"


def test_a_kill_while_writing_leaves_the_one_before(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from tests.tools.training.test_checkpoints import keep
        from tunesmith.tools.training.checkpoints import keep_checkpoint
        root = Path({str(tmp_path)!r})
        keep(root, 1)
        def write(aside):
            (aside / "any").mkdir()
            (aside / "any" / "weights").write_text("half")
            (root / "writing").touch()
            time.sleep(600)
            return aside / "any"
        keep_checkpoint(root, 2, "f", write)
    """)
    root = Path(__file__).parents[3]
    child = subprocess.Popen([sys.executable, "-c", script], cwd=root)
    deadline = time.monotonic() + HANG_S
    while not (tmp_path / "writing").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert (tmp_path / "writing").exists()
    assert newest_checkpoint(tmp_path, "f") == tmp_path / "checkpoint-1"
    keep(tmp_path, 2)
    assert newest_checkpoint(tmp_path, "f") == tmp_path / "checkpoint-2"
    assert not (tmp_path / ".writing").exists()
