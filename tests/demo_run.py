"""One fast demo, carried out by the command a stranger types, for every test that looks at a finished arc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def tunesmith(home: Path, *args: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tunesmith.agent", *args],
        env={**os.environ, "TUNESMITH_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def as_json(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Demo:
    """One finished arc: its home, its events, and how long it took."""

    def __init__(self, home: Path) -> None:
        self.home = home
        started = time.monotonic()
        self.done = tunesmith(home, "demo", "--fast", "--yes", "--json", timeout_s=840)
        self.seconds = time.monotonic() - started
        self.events = [json.loads(line) for line in self.done.stdout.splitlines()]
        self.show = as_json(tunesmith(home, "runs", "show", self.run, "--json")) if self.done.returncode == 0 else {}

    @property
    def run(self) -> str:
        return str(self.events[-1]["run"])

    def compare(self, *arms: str) -> Any:
        return as_json(tunesmith(self.home, "compare", self.run, "--arms", ",".join(arms), "--json"))
