"""A model of the store against three processes: one execution a used yes, no result lost, one worker a step.

The model knows what each order should do, whoever gives it; the processes are killed, paused, raced against each
other, and their clocks are set. `make test-trust` tries 2,000 histories.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.trust import peers
from tunesmith.memory.records import ABANDONED, APPROVED, DECLINED, DONE, ENDED, FAILED, PLANNED, RUNNING, STOPPED
from tunesmith.memory.store import Store

pytestmark = pytest.mark.heavy
MANY = 3
WHO = st.integers(0, MANY - 1)
HOUR_S = 3600.0
HOURS = st.sampled_from([-1.0, 0.0, 1.0])
"""What a process's clock is set to meanwhile."""


class Processes:
    """Three processes that do what they are told; one that is killed is followed by another."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.trust.peers"])
        self.ends: list[Connection] = []
        self.processes: list[BaseProcess] = []
        for number in range(MANY):
            self.start(number)

    def start(self, number: int) -> None:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=peers.main, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        self.ends[number : number + 1], self.processes[number : number + 1] = [ours], [process]

    def tell(self, who: int, *order: object) -> Any:
        self.ends[who].send(order)
        return self.answer(who)

    def answer(self, who: int) -> Any:
        assert self.ends[who].poll(30), f"process {who} does not answer"
        return self.ends[who].recv()

    def signal(self, who: int, number: signal.Signals) -> None:
        os.kill(self.processes[who].pid or 0, number)

    def kill(self, who: int) -> None:
        self.processes[who].kill()
        self.processes[who].join()
        self.ends[who].close()
        self.start(who)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


@dataclass
class Known:
    """What a step should be."""

    run: str
    status: str = PLANNED
    ended_as: str = ""
    """How it had ended before it was offered again."""
    agreed: bool = False
    starter: int | None = None
    """Whose yes it is that is being started: nobody else withdraws it."""
    worker: tuple[int, int] | None = None
    """Who claimed it last, and in which life of that process."""
    claims: int = 0


_processes: Processes | None = None


class StoreModel(RuleBasedStateMachine):
    """Orders to any process, and what each should answer."""

    steps = Bundle("steps")

    def __init__(self) -> None:
        super().__init__()
        assert _processes
        self.all = _processes
        self.home = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        shutil.copytree(_empty(), self.home, dirs_exist_ok=True)
        self.known: dict[str, Known] = {}
        self.lives = [0] * MANY
        self.at_work: dict[str, set[int]] = {}  # step → who holds its lock, which is one at most
        for who in range(MANY):
            self.all.tell(who, "open", str(self.home))
            self.all.tell(who, "clock", 0.0)
        self.run = self.all.tell(0, "run")
        self.look = Store(self.home)

    def teardown(self) -> None:
        self.look.close()
        shutil.rmtree(self.home)

    def holder(self, step: str) -> int | None:
        return next(iter(self.at_work.get(step, ())), None)

    @initialize(target=steps)
    def first_step(self) -> str:
        return self.propose(0)

    @rule(target=steps, who=WHO)
    def propose(self, who: int) -> str:
        step: str = self.all.tell(who, "propose", self.run)
        assert step not in self.known, "an id was used twice"
        for known in self.known.values():
            if known.run == self.run and known.status == PLANNED:  # its price is not open any more
                known.status = known.ended_as or ABANDONED
        self.known[step] = Known(self.run)
        return step

    @rule(who=WHO, hours=HOURS)
    def new_run(self, who: int, hours: float) -> None:
        self.all.tell(who, "clock", hours * HOUR_S)
        self.run = self.all.tell(who, "run")

    def may_decide(self, who: int, known: Known, word: str) -> bool:
        return known.status in (PLANNED, ABANDONED) and (word == "no" or known.starter in (None, who))

    @rule(who=WHO, step=steps, word=st.sampled_from(["yes", "yes", "yes", "no"]))
    def decide(self, who: int, step: str, word: str) -> None:
        known = self.known[step]
        may = self.may_decide(who, known, word)
        assert self.all.tell(who, "decide", step, word) is may
        if may:
            known.status, known.agreed = (APPROVED, True) if word == "yes" else (known.ended_as or DECLINED, False)
        if may and word == "yes":
            known.starter = who
        elif not may and known.starter == who:
            known.starter = None  # what it could not agree to, it lets go of

    @rule(who=WHO, step=steps)
    def let_go(self, who: int, step: str) -> None:
        self.all.tell(who, "let_go", step)
        if self.known[step].starter == who:
            self.known[step].starter = None

    def may_claim(self, step: str) -> bool:
        return self.known[step].status == APPROVED and self.holder(step) is None

    def claimed(self, who: int, step: str) -> None:
        known = self.known[step]
        known.status, known.agreed, known.worker = RUNNING, False, (who, self.lives[who])
        known.starter = None if known.starter == who else known.starter  # who claims it has started it
        known.claims += 1
        self.at_work[step] = {who}

    @rule(who=WHO, step=steps)
    def claim(self, who: int, step: str) -> None:
        may = self.may_claim(step)
        assert self.all.tell(who, "claim", step) is may
        if may:
            self.claimed(who, step)

    @rule(step=steps, what=st.sampled_from(["claim", "yes"]))
    def race(self, step: str, what: str) -> None:
        """All at once: it is done by one, where it may be done at all."""
        known = self.known[step]
        may = [self.may_claim(step) if what == "claim" else self.may_decide(who, known, "yes") for who in range(MANY)]
        for who in range(MANY):
            self.all.ends[who].send(("claim", step) if what == "claim" else ("decide", step, "yes"))
        winners = [who for who in range(MANY) if self.all.answer(who)]
        assert len(winners) == any(may), f"{what} of {step} by {winners}"
        if winners and what == "claim":
            self.claimed(winners[0], step)
        elif winners:
            known.status, known.agreed, known.starter = APPROVED, True, winners[0]
        elif what == "yes" and known.status not in (PLANNED, ABANDONED):
            known.starter = None

    @rule(who=WHO, step=steps)
    def finish(self, who: int, step: str) -> None:
        known = self.known[step]
        done = known.worker == (who, self.lives[who]) and known.status != DONE
        assert self.all.tell(who, "finish", step) is done
        self.at_work.get(step, set()).discard(who)
        if done:
            known.status = DONE

    @rule(who=WHO, step=steps)
    def fail(self, who: int, step: str) -> None:
        known = self.known[step]
        failed = known.worker == (who, self.lives[who]) and known.status == RUNNING
        assert self.all.tell(who, "fail", step) is failed
        self.at_work.get(step, set()).discard(who)
        if failed:
            known.status = FAILED

    @rule(who=WHO, step=steps)
    def stop(self, who: int, step: str) -> None:
        known = self.known[step]
        assert self.all.tell(who, "stop", step) is (known.status not in ENDED)
        if known.status not in ENDED:
            known.status = STOPPED

    @rule(who=WHO, step=steps)
    def reopen(self, who: int, step: str) -> None:
        known = self.known[step]
        elsewhere = known.status == APPROVED and known.starter not in (None, who)
        may = known.status not in (RUNNING, DONE) and not elsewhere
        assert self.all.tell(who, "reopen", step) is may
        if may:
            known.ended_as = known.status if known.status in (FAILED, STOPPED) else known.ended_as
            known.status, known.agreed = PLANNED, False

    def onward(self, who: int, step: str, well: bool, hours: float) -> None:
        """What comes next in a step's life, so that many come far; the other rules order anything at any time."""
        known = self.known[step]
        self.all.tell(who, "clock", hours * HOUR_S)
        if known.status == PLANNED:
            self.decide(who, step, "yes")
        elif known.status == APPROVED:
            self.claim(who, step)
        elif known.status == RUNNING and known.worker:
            (self.finish if well else self.fail)(known.worker[0], step)
        else:
            self.reopen(who, step)

    onward_1 = rule(who=WHO, step=steps, well=st.booleans(), hours=HOURS)(onward)
    onward_2 = rule(who=WHO, step=steps, well=st.booleans(), hours=HOURS)(onward)
    onward_3 = rule(who=WHO, step=steps, well=st.booleans(), hours=HOURS)(onward)

    @rule(who=WHO)
    def reconcile(self, who: int) -> None:
        """Dead are those whose process was killed, or has let go of them."""
        dead = {step for step, known in self.known.items() if known.status == RUNNING and self.holder(step) is None}
        assert set(self.all.tell(who, "reconcile")) == dead
        for step in dead:
            self.known[step].status = FAILED

    @rule(who=WHO)
    def kill(self, who: int) -> None:
        self.all.kill(who)
        self.all.tell(who, "open", str(self.home))
        self.lives[who] += 1
        for known in self.known.values():
            known.starter = None if known.starter == who else known.starter
        for holders in self.at_work.values():
            holders.discard(who)

    @rule(who=WHO)
    def pause(self, who: int) -> None:
        """What a paused process works on is not given up by those who look."""
        self.all.signal(who, signal.SIGSTOP)
        try:
            self.reconcile((who + 1) % MANY)
        finally:
            self.all.signal(who, signal.SIGCONT)

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        assert {step.id: step.status for step in self.look.priced_steps()} == {
            s: known.status for s, known in self.known.items()
        }
        newest = self.look.newest_run()
        assert newest and newest.id == self.run, "the newest run is the one that was opened last"

    @invariant()
    def every_execution_has_a_yes_of_its_own(self) -> None:
        used = self.look.read(
            "SELECT step, count(*) FROM approvals WHERE used_at IS NOT NULL AND decision = 'yes' GROUP BY 1"
        )
        assert dict(map(tuple, used)) == {step: known.claims for step, known in self.known.items() if known.claims}


@cache
def _empty() -> Path:
    home = Path(tempfile.mkdtemp(prefix="tunesmith-model-"))
    Store(home).close()
    return home


@pytest.fixture(scope="module", autouse=True)
def three_processes() -> Iterator[None]:
    global _processes
    _processes = Processes()
    yield
    _processes.end()
    shutil.rmtree(_empty())


@pytest.mark.parametrize("histories", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_three_processes_do_what_the_model_says(histories: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        StoreModel,
        settings=settings(
            max_examples=histories, stateful_step_count=30, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck), print_blob=False,
        ),
    )  # fmt: skip
