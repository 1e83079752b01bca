"""The short demo's way through a real Ray head: rows, training and measuring there, lineage and report here.

The head is killed in the middle of the training and comes back: nothing is lost, and nothing was started twice.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fixtures.ray_head import Head, ray_head
from tests.fixtures.terminal import COMMAND
from tests.fixtures.waiting import wait_for
from tunesmith.memory.files import verify
from tunesmith.memory.records import DONE, FAILED, RUNNING, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.local_paths import bundled_behaviour

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
]
HANG_S = 1800.0
PLAN = """
name: there
steps:
  - {stage: base, model: bundled}
  - {stage: baseline, suites: [demo], cases_per_block: 3, max_tokens: 52}
  - {stage: import, source: ROWS, behaviour: demo, limit: 24}
  - {stage: generate, behaviour: demo, rows: 0, near_miss_rows: 4, rehearsal_rows: 8, ordinary_tokens: 24}
  - {stage: critique, on_leak: drop}
  - {stage: train, epochs: 1, batch_size: 3, learning_rate: 0.0015}
  - {stage: evaluate, arm: adapter, max_tokens: 52, peft_check: "off"}
"""
THERE, HERE = ("baseline", "generate", "critique", "train", "evaluate"), ("base", "import")


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Head]:
    with ray_head(tmp_path) as head:
        head.write_settings()
        yield head


def at_work(head: Head) -> list[int]:
    """Programs of ours on that machine."""
    there = str(head.folder / "theirs")
    found = psutil.process_iter(["pid", "cmdline"])
    return [p.info["pid"] for p in found if any(there in word for word in p.info["cmdline"] or ())]


def steps(head: Head, stage: str) -> list[Step]:
    return [step for step in Store(head.home).steps("r1") if step.stage == stage] if head.home.exists() else []


def begin(head: Head, *args: str) -> subprocess.Popen[bytes]:
    with (head.folder / "said").open("ab") as said:
        env = {**os.environ, "TUNESMITH_HOME": str(head.home)}
        return subprocess.Popen([*COMMAND, *args], env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said)


def test_the_short_demo_goes_there_and_back_though_its_head_is_killed(head: Head) -> None:
    plan = head.folder / "plan.yaml"
    plan.write_text(PLAN.replace("ROWS", str(bundled_behaviour() / "rows.jsonl")))
    run = begin(head, "run", str(plan), "--on", "ray", "--yes")

    def trains() -> bool:
        assert run.poll() is None, (head.folder / "said").read_text()
        return any(step.status == RUNNING and step.note.startswith("step ") for step in steps(head, "train"))

    wait_for(trains, timeout_s=HANG_S, every_s=0.2)
    head.end(signal.SIGKILL)
    wait_for(lambda: not at_work(head), told="what a dead head had started works on")
    head.start()
    assert run.wait(HANG_S) == 1, "the head that came back knows nothing of the step"
    [failed] = steps(head, "train")
    assert failed.status == FAILED and "its head was restarted since" in failed.error, failed.error

    again = head.tunesmith("resume", "r1", "--yes")
    assert again.returncode == 0, again.stderr
    [trained] = steps(head, "train")
    assert trained.status == DONE and trained.id == failed.id, "it goes on, and is not planned anew"
    hold(head)


def hold(head: Head) -> None:
    """Where each step was done, what came back of it, and what it was made from."""
    shown: dict[str, Any] = json.loads(head.tunesmith("runs", "show", "r1", "--json").stdout)
    where = {step["stage"]: step["on"].partition(", ")[0] for step in shown["steps"]}
    assert where == {**dict.fromkeys(THERE, head.settings.address), **dict.fromkeys(HERE, "")}
    for step in shown["steps"]:
        for made in step["artifacts"]:
            verify(Path(made["path"]), made["sha256"])
    store = Store(head.home)
    [adapter], [dataset], [base] = (store.artifacts("r1", kind) for kind in ("adapter", "dataset", "base"))
    assert {base.id, dataset.id} <= set(adapter.parents), "what was made there is known here by its ids here"
    assert store.ancestor(adapter, "rows") is not None
    [results] = [made for made in store.artifacts("r1", "results") if made.step == shown["steps"][-1]["step"]]
    assert adapter.id in results.parents
    compared = json.loads(head.tunesmith("compare", "r1", "--arms", "base,adapter", "--json").stdout)
    assert compared["comparable"], compared["differs_in"]
    report = (head.home / "runs" / "r1" / "report.html").read_text()
    assert report.count(f"on {head.settings.address}") == len(THERE)
    assert not at_work(head), "nothing of the run is left at work there"
