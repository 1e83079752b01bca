"""Killed, or told of an error, at any call that changes a file: whole or absent, nothing lost or unasked, no hang.

A library is preloaded that ends the process at its Nth such call (`faults.c`); `points.py` tries one N after another.
After each the home is opened, looked through, and the step is gone on with to its end.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trust import points

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not shutil.which("cc") or sys.platform != "linux", reason="needs a C compiler, on Linux"),
]
HERE = Path(__file__).parent
SCENARIOS = ("ledger", "files", "migration", "base", "import", "inspect", "recovery")
CREATE, WRITE, SYNC, RENAME, _, FOLDER, TRUNCATE, LOCK, _ = (1 << bit for bit in range(9))
ROOM = CREATE | WRITE | FOLDER | TRUNCATE
CHANGES = points.ALL & ~LOCK
FAULTS = {
    "killed": (points.KILL, 0, points.ALL),
    "killed in a write": (points.TEAR, 0, WRITE),
    "disk full for a moment": (points.ONCE, errno.ENOSPC, ROOM),
    "disk full from then on": (points.ALWAYS, errno.ENOSPC, ROOM),
    "a failing disk": (points.ONCE, errno.EIO, WRITE | SYNC | RENAME),
    "a failed disk": (points.ALWAYS, errno.EIO, WRITE | SYNC | RENAME | CREATE),
    "a slow disk": (points.SLOW, 30, CHANGES),
    "a signal": (points.ONCE, errno.EINTR, CREATE | WRITE | SYNC | LOCK),
    "a folder that became read-only": (points.ALWAYS, errno.EROFS, CHANGES),
}
QUICK = {("ledger", "killed"): 16, ("files", "killed"): 3, ("migration", "killed"): 13, ("recovery", "killed"): 12,
         ("base", "killed"): 11,
         ("import", "killed in a write"): 8,
         ("base", "disk full from then on"): 29, ("ledger", "a failing disk"): 24, ("inspect", "a signal"): 8,
         ("import", "a folder that became read-only"): 29,
         ("ledger", "a slow disk"): 1000, ("base", "a slow disk"): 1000, ("import", "a slow disk"): 1000}  # fmt: skip
"""What is in the quick part → every which call."""
EACH = [
    *(
        pytest.param(*which, stride, id=f"{which[0]}-{which[1]}", marks=pytest.mark.xdist_group("kill points"))
        for which, stride in QUICK.items()
    ),
    *(
        pytest.param(scenario, fault, 1, id=f"{scenario}-{fault}-all", marks=pytest.mark.slow)
        for scenario in SCENARIOS
        for fault in FAULTS
    ),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", made, HERE / "faults.c", "-ldl"], check=True)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: what is asked of the disk is the same, and a sync costs nothing."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as made:
        yield Path(made)


@pytest.fixture(scope="module")
def killer(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """The process that tries the points, for all tests of this module."""
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(HERE.parents[1]))))
    env = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": path}
    command, pipe = [sys.executable, "-m", "tests.trust.points"], subprocess.PIPE
    where = tmp_path_factory.mktemp("killer")
    with subprocess.Popen(command, env=env, cwd=where, stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        process.kill()


def tried(killer: subprocess.Popen[str], folder: Path, scenario: str, fault: str, stride: int) -> tuple[int, list[str]]:
    """How many points were tried, and what was wrong at which."""
    assert killer.stdin and killer.stdout
    print(json.dumps([scenario, str(folder), *FAULTS[fault], stride]), file=killer.stdin, flush=True)
    found = json.loads(killer.stdout.readline() or '{"points": 0, "wrong": ["the process that tries them has ended"]}')
    return found["points"], found["wrong"]


@pytest.mark.parametrize(("scenario", "fault", "stride"), EACH)
def test_nothing_is_lost_or_half_wherever_it_ends(
    killer: subprocess.Popen[str], folder: Path, scenario: str, fault: str, stride: int
) -> None:
    points_, wrong = tried(killer, folder, scenario, fault, stride)
    print(f"POINTS {scenario}, {fault}: {points_}, wrong: {len(wrong)}")
    assert not wrong, "\n".join(wrong)
    least = {"ledger": 100, "files": 4, "migration": 40, "base": 40, "import": 20, "inspect": 10, "recovery": 40}
    assert points_ * stride >= least[scenario]
