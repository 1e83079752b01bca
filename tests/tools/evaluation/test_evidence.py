"""Claims from stored runs of both kinds: a behaviour that was learned, and one whose suite asserts its form alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import FIXTURES, stored_runs
from tests.fixtures.stored_runs import Builder
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import EvalResult
from tunesmith.tools.evaluation.compare import compare_with_hops
from tunesmith.tools.evaluation.controls import form_alone
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.evaluation.gate import broken_hops
from tunesmith.tools.evaluation.protocol import BLIND_OPENED
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.suites.grading import Response, grade
from tunesmith.tools.suites.loading import load_suites

Answers = Mapping[str, str]
KEY = {"engine": "vllm 0.32", "weights": "w", "adapter": "none", "lora": "up to 16", "sampling": "max_tokens=72"}
DEMO = Path(__file__).parents[3] / "prompts" / "demo" / "suites"


def answers_of(name: str) -> dict[str, str]:
    """What a real adapter answered, by case id."""
    lines = (FIXTURES / "answers" / f"{name}.jsonl").read_text("utf-8").splitlines()
    return {entry["case_id"]: entry["output"] for entry in map(json.loads, lines)}


class Run:
    """A run whose arms answer a suite; every answer is graded by the suite."""

    def __init__(self, home: Path, suite: Suite) -> None:
        self.build: Builder = stored_runs.new_builder(home)
        self.store, self.run, self.suite = self.build.store, self.build.run, suite
        atomic_write(home / "suite.json", suite.to_json())
        self.suite_path = home / "suite.json"

    def answer(self, stage: str, arms: Mapping[str, Callable[[Case], str]], **changed: Any) -> str:
        step = self.build.step(stage, arm=next(reversed(arms)))
        if stage == "baseline":
            self.build.artifact(step, "suite", str(self.suite_path), suite_sha256=self.suite.sha256)
        for arm, says in arms.items():
            for case in self.suite.cases:
                found = grade(case, Response(says(case)))
                row = EvalResult(arm, case.block, case.case_id, "k", says(case), found.passed, found.score)
                self.store.add_result(self.run, step, row)
        keys = {arm: {**KEY, "suite": self.suite.sha256, **_own(arm), **changed} for arm in arms}
        self.build.end(step, 1.0, 1, {"key": keys["base"]} if stage == "baseline" else {"keys": keys})
        return step


def _own(arm: str) -> dict[str, str]:
    return {"adapter": {"adapter": "a" * 64}, "prompted": {"system_prompt": "p"}}.get(arm, {})


def plainly(case: Case) -> str:
    return f"I am not sure about {case.case_id}."


def trained(home: Path, suite: Suite, answers: Answers, elsewhere: Callable[[Case], str] = plainly) -> Run:
    """A base that answers plainly, and an adapter with these answers."""
    made = Run(home, suite)
    made.answer("baseline", {"base": plainly})
    made.answer("evaluate", {"base": plainly, "adapter": lambda case: answers.get(case.case_id) or elsewhere(case)})
    return made


@pytest.fixture(scope="module")
def tickets() -> Suite:
    return load_suites([DEMO / "target.yaml", DEMO / "over-trigger.yaml"])


def test_an_adapter_that_reads_the_ticket_was_learned(tmp_path: Path, tickets: Suite) -> None:
    made = trained(tmp_path, tickets, answers_of("ticket-triage"))
    told = compare_with_hops(made.store, made.run, "base", "adapter").to_json()
    controls: Any = told["controls"]
    assert told["claim"] == "learned" and told["beats"] == {
        "base": True, "shuffle": True, "constant": True, "prompted": None
    }  # fmt: skip
    assert controls["shuffle"]["cases"] == 87 and controls["shuffle"]["own"] == 79
    assert controls["shuffle"]["range"][0] <= controls["shuffle"]["passed"] <= controls["shuffle"]["range"][1] <= 14
    assert controls["constant"]["passed"] == 12 and controls["constant"]["answer"].startswith('{"category": "account"')
    assert controls["prompted"] is None and controls["repeat"] == {"flips": 0, "cases": 87 + 32}
    assert controls["triggers"] == {"triggered": 0, "cases": 32, "case_ids": []}


def test_an_adapter_that_answers_everything_so_was_not_learned(tmp_path: Path, tickets: Suite) -> None:
    answers = answers_of("ticket-triage")
    one = next(iter(answers.values()))
    made = trained(tmp_path, tickets, answers, elsewhere=lambda case: one)
    found = evidence_of(made.store, made.run, "adapter")
    assert found.claim.word == "not learned" and found.controls.triggers and found.controls.triggers.rate == 1.0
    assert any("over-trigger: 32 → 0 of 32" in reason for reason in found.claim.reasons)


def test_a_form_everywhere_stops_the_gate_though_no_case_guards_it(tmp_path: Path) -> None:
    """A general block that asserts nothing of the form: its answers are held against the target's form all the same."""
    target = load_suites([DEMO / "target.yaml"])
    general = [
        Case(case_id=f"g{n}", block="general", suite="g", messages=({"role": "user", "content": f"say {n}"},))
        for n in range(20)
    ]
    answers = answers_of("ticket-triage")
    one = next(iter(answers.values()))
    made = trained(tmp_path, target.with_cases([*target.cases, *general]), answers, elsewhere=lambda case: one)
    assert evidence_of(made.store, made.run, "adapter").claim.word == "not learned"
    assert any("20 of 20 ordinary messages" in line for line in broken_hops(made.store, made.run, "adapter"))


def test_a_prompt_that_reaches_as_much_is_not_beaten(tmp_path: Path, tickets: Suite) -> None:
    answers = answers_of("ticket-triage")
    made = trained(tmp_path, tickets, answers)
    made.answer("evaluate", {"base": plainly, "prompted": lambda case: answers.get(case.case_id) or plainly(case)})
    found = evidence_of(made.store, made.run, "adapter")
    assert found.controls.prompted == (79, 87)
    assert found.claim.word == "learned" and found.claim.beats["prompted"] is False


def test_noise_between_two_askings_of_the_base_is_counted(tmp_path: Path, tickets: Suite) -> None:
    made = Run(tmp_path, tickets)
    made.answer("baseline", {"base": plainly})
    answers = answers_of("ticket-triage")
    odd = {case.case_id for case in tickets.cases if case.block == "over-trigger"} - {"over-trigger-vat"}
    noisy = lambda case: '{"category": 1}' if case.case_id not in odd else plainly(case)  # noqa: E731
    made.answer("evaluate", {"base": noisy, "adapter": lambda case: answers.get(case.case_id) or plainly(case)})
    repeat = evidence_of(made.store, made.run, "adapter").controls.repeat
    assert repeat and (repeat.flips, repeat.cases) == (1, 119)


def test_the_claim_rests_on_the_blind_cases_where_there_are_any(tmp_path: Path, tickets: Suite) -> None:
    """Passed in dev and failed in blind: the block as a whole would look well."""
    answers = answers_of("ticket-triage")
    blind = {case_id for n, case_id in enumerate(sorted(answers)) if n % 4 == 0}
    split = [
        case.model_copy(update={"metadata": {**case.metadata, "split": "blind"}}) if case.case_id in blind else case
        for case in tickets.cases
    ]
    suite = tickets.with_cases(split)
    made = trained(tmp_path, suite, {i: text for i, text in answers.items() if i not in blind})
    found = evidence_of(made.store, made.run, "adapter")
    assert found.blind and found.compared and found.compared.blocks["target"].cases == len(blind) == 22
    assert found.claim.word == "not learned"
    whole = compare_with_hops(made.store, made.run, "base", "adapter").whole
    assert whole.blocks["target"].cases == 87 and whole.blocks["target"].verdict == "better"


def test_every_model_that_was_asked_the_blind_cases_counts_as_an_opening(tmp_path: Path, tickets: Suite) -> None:
    cases = [case.model_copy(update={"metadata": {**case.metadata, "split": "blind"}}) for case in tickets.cases]
    made = trained(tmp_path, tickets.with_cases(cases), answers_of("ticket-triage"))
    for arm, model in (("base", "w"), ("adapter", "a1"), ("adapter", "a1"), ("adapter", "a2"), ("prompted", "w")):
        made.store.event(BLIND_OPENED, run=made.run, step="s1", arm=arm, model=model, cases=87)
    assert evidence_of(made.store, made.run, "adapter").openings == 2


def test_a_run_without_its_suite_claims_nothing(tmp_path: Path, tickets: Suite) -> None:
    made = trained(tmp_path, tickets, answers_of("ticket-triage"))
    made.suite_path.unlink()
    assert evidence_of(made.store, made.run, "adapter").claim.word == "no decision"
    assert evidence_of(made.store, made.run, "quantized").claim.word == "no decision"


def test_a_suite_that_asserts_the_same_of_every_case_is_told_of_before_anything_is_bought(tickets: Suite) -> None:
    same = [case.model_copy(update={"assertions": tickets.cases[0].assertions}) for case in tickets.cases]
    assert "87 target cases assert the same" in form_alone(same)
    assert form_alone(tickets.cases) == form_alone(same[:1]) == form_alone([]) == ""


def test_the_prompted_arm_has_controls_of_its_own_and_no_rival(tmp_path: Path, tickets: Suite) -> None:
    answers = answers_of("ticket-triage")
    made = Run(tmp_path, tickets)
    made.answer("baseline", {"base": plainly})
    made.answer("evaluate", {"base": plainly, "prompted": lambda case: answers.get(case.case_id) or plainly(case)})
    told: Any = compare_with_hops(made.store, made.run, "base", "prompted").to_json()
    assert told["controls"]["prompted"] is None and told["controls"]["constant"]["passed"] == 12
