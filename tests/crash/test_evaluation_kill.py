"""`kill -9` in the middle of an evaluation: the rest is asked, nothing twice, and the table is the same in the end."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.steps import say_yes
from tests.fixtures.waiting import until_served, wait_for
from tunesmith.memory.records import Step
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import launcher
from tunesmith.tools.pipeline.run_step import decide, price, propose, resume_step, run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving import servers

pytestmark = pytest.mark.heavy

STUB = str(FIXTURES / "stub_chat.py")
CASES, KILLS, CONCURRENCY = 80, 4, 6


@pytest.fixture
def ws(based: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv("STUB_REQUESTS", str(tmp_path / "requests"))
    monkeypatch.setenv("STUB_DELAY_S", "0.03")
    shutil.copytree(based / "home", tmp_path / "home")
    yield Workspace(Store(tmp_path / "home"), STUB, lambda event, **data: None)
    servers.stop_all(tmp_path / "home")


def write_suite(path: Path) -> Path:
    tests = "".join(
        f"  - {{vars: {{q: 'question {n}'}}, metadata: {{case_id: c{n}, block: {('target', 'general')[n % 2]}}}}}\n"
        for n in range(CASES)
    )
    path.write_text(
        f"prompts: ['{{{{q}}}}']\ndefaultTest: {{assert: [{{type: contains, value: 'yes'}}]}}\ntests:\n{tests}"
    )
    return path


def proposed(ws: Workspace, run: str, suite: Path) -> str:
    fields = {"suites": (str(suite),), "concurrency": CONCURRENCY, "fresh": True}
    plan = price(ws, StepRequest("baseline", fields, run))
    step = propose(ws, plan)
    assert decide(ws, step, plan, say_yes).yes
    return step


def calls(ws: Workspace) -> int:
    """Requests that the server has seen, once it sees no more."""
    for server in servers.list_servers(ws.store.home):
        until_served(server.port)
    path = ws.store.home.parent / "requests"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def table(ws: Workspace, step: str) -> list[tuple[Any, ...]]:
    return sorted(
        (r.arm, r.block, r.case_id, r.repeat, r.output, r.passed, r.score, r.prompt_tokens, r.completion_tokens)
        for r in ws.store.results(step)
    )


def killed_at(ws: Workspace, step: str, case: int) -> int:
    """Start the step's worker, kill it once `case` answers are stored, and return how many are."""
    pid = launcher.launch(ws.store, step, vllm=STUB).pid
    assert pid
    count = "SELECT count(*) FROM eval_results WHERE step = ?"
    wait_for(lambda: ws.store.read(count, step)[0][0] >= case, every_s=0.002, told="the worker does not get on")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not launcher.is_alive(ws.store, ws.store.step(step)))
    assert [dead.id for dead in launcher.reconcile(ws.store)] == [step]
    return int(ws.store.read(count, step)[0][0])


def finished(ws: Workspace, step: str) -> Step:
    ended = resume_step(ws, step, say_yes).done()
    assert ended.status == "done", ended.error
    return ended


def test_killed_at_case_k_of_n_it_asks_exactly_the_others_and_ends_with_the_same_table(
    ws: Workspace, tmp_path: Path
) -> None:
    run, suite = "r1", write_suite(tmp_path / "suite.yaml")
    whole = run_step(
        ws, StepRequest("baseline", {"suites": (str(suite),), "concurrency": CONCURRENCY, "fresh": True}, run), say_yes
    ).done()
    expected = table(ws, whole.id)
    assert len(expected) == CASES == calls(ws)
    rng = random.Random(os.urandom(8))
    for _ in range(KILLS):
        step = proposed(ws, run, suite)
        stored = killed_at(ws, step, rng.randint(1, CASES - CONCURRENCY - 1))
        assert stored < CASES, "killed too late to prove anything"
        before = calls(ws)
        ended = finished(ws, step)
        assert calls(ws) - before == CASES - stored
        assert table(ws, step) == expected
        assert (ended.result or {})["blocks"] == (whole.result or {})["blocks"]
