"""Two finished runs, made once for all queries that only read, and a run whose cases want labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.driver.exam_home import make_exam_home
from tests.fixtures import stored_runs
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import AssertionResult, EvalResult
from tunesmith.memory.store import Store
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.suites.grading import Assertion, Response, grade


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of an exam's home: r1 and r2, all steps done. Read it only."""
    return Store(make_exam_home(tmp_path_factory.mktemp("two-runs") / "home"))


GIVEN = {"billing": ["billing", "returns", "returns", "billing"], "returns": ["returns", "my secret", "returns", "no"]}
"""Label → what the adapter gave to the cases that want it; the last of each label is blind."""


@pytest.fixture
def tickets(tmp_path: Path) -> Store:
    """A run whose target cases want one of two labels; its adapter takes some for others and says what is no label."""
    build = stored_runs.new_builder(tmp_path / "tickets")
    cases, answers = [], []
    for label, given in GIVEN.items():
        for n, answer in enumerate(given):
            schema = {"type": "object", "properties": {"category": {"const": label}}}
            cases.append(
                Case(
                    case_id=f"ticket-{label[0]}{n}", block="target", suite="s",
                    messages=({"role": "user", "content": f"Ticket {n} about {label}"},),
                    assertions=(Assertion(type="is-json", value=schema),),
                    metadata={"split": "blind"} if n == len(given) - 1 else {},
                )
            )  # fmt: skip
            answers.append("no" if answer == "no" else f'{{"category": "{answer}"}}')
    suite = Suite(cases=tuple(cases))
    atomic_write(tmp_path / "suite.json", suite.to_json())
    for stage, arm, said in (("baseline", "base", ["no"] * len(answers)), ("evaluate", "adapter", answers)):
        step = build.step(stage, arm=arm)
        if stage == "baseline":
            blind = [case.case_id for case in cases if case.is_blind]
            build.artifact(step, "suite", str(tmp_path / "suite.json"), suite_sha256=suite.sha256, blind=blind)
        for case, text in zip(cases, said, strict=True):
            graded = grade(case, Response(text))
            build.store.add_results(
                build.run, step,
                [EvalResult(arm, "target", case.case_id, "k", text, graded.passed, None, assertions=[
                    AssertionResult("is-json", bool(graded.passed), 0.0, "")], completion_tokens=9)],
            )  # fmt: skip
        key = {"suite": suite.sha256, **({"adapter": "a"} if arm == "adapter" else {})}
        build.end(step, 1.0, 1, {"key": key} if arm == "base" else {"keys": {arm: key}})
    return build.store
