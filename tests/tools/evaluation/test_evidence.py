"""Claims from stored runs of both kinds: a behaviour that was learned, and one whose suite asserts its form alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import FIXTURES, stored_runs
from tests.fixtures.stored_runs import Builder
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import EvalResult
from tunesmith.memory.store import Store
from tunesmith.tools.core.stats import lower_bound
from tunesmith.tools.evaluation.compare import compare_with_hops
from tunesmith.tools.evaluation.controls import form_alone
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.evaluation.gate import gate_of
from tunesmith.tools.evaluation.protocol import BLIND_OPENED, CASE_DIGITS
from tunesmith.tools.evaluation.verdict import RULE
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
                self.store.add_results(self.run, step, [row])
        report = changed.pop("report", {})
        keys = {
            arm: {**KEY, "suite": self.suite.sha256, **_own(arm), **(changed if arm != "base" else {})} for arm in arms
        }
        self.build.end(step, 1.0, 1, {"key": keys["base"]} if stage == "baseline" else {"keys": keys, **report})
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


@pytest.mark.heavy
def test_an_adapter_that_reads_the_ticket_was_learned(tmp_path: Path, tickets: Suite) -> None:
    made = trained(tmp_path, tickets, answers_of("ticket-triage"))
    told = compare_with_hops(made.store, made.run, "base", "adapter").to_json()
    controls: Any = told["controls"]
    assert told["claim"] == "learned" and told["beats"] == {
        "base": True, "shuffle": True, "constant": True, "echo": True, "prompted": None
    }  # fmt: skip
    assert controls["shuffle"]["cases"] == 87 + 32 and controls["shuffle"]["own"] == 79 + 32
    assert controls["shuffle"]["range"][0] <= controls["shuffle"]["passed"] <= controls["shuffle"]["range"][1] <= 40
    assert controls["constant"]["on_target"]["passed"] == 12 and controls["echo"] | {"passed": 0} == controls["echo"]
    people: Any = told["people"]
    assert (people["passed"], people["cases"], people["needed"], told["claim_rule"]) == (79, 87, 0, RULE)
    assert people["lower_bound"] == pytest.approx(lower_bound(79, 87, 0.9))
    assert people["mid_p_value"] < people["p_value"]
    assert controls["prompted"] is None and controls["repeat"] == {"flips": 0, "cases": 87 + 32}
    assert controls["triggers"] == {"triggered": 0, "cases": 32, "case_ids": []}


def test_an_adapter_that_answers_everything_so_was_not_learned(tmp_path: Path, tickets: Suite) -> None:
    answers = answers_of("ticket-triage")
    one = next(iter(answers.values()))
    made = trained(tmp_path, tickets, answers, elsewhere=lambda case: one)
    found = evidence_of(made.store, made.run, "adapter")
    assert found.verdict.word == "not learned" and found.triggers and found.triggers.rate == 1.0
    assert any("over-trigger got worse: 32 → 0 of 32" in reason for reason in found.verdict.reasons)


def test_a_form_everywhere_stops_the_gate_though_no_case_guards_it(tmp_path: Path) -> None:
    """A general block that asserts nothing of the form: its answers are held against the target's form all the same."""
    target = load_suites([DEMO / "target.yaml"])
    general = [
        Case(case_id=f"g{n}", block="general", suite="g", messages=({"role": "user", "content": f"say {n}"},))
        for n in range(20)
    ]
    answers = answers_of("ticket-triage")
    one = next(iter(answers.values()))
    made = trained(tmp_path, Suite(cases=(*target.cases, *general)), answers, elsewhere=lambda case: one)
    assert evidence_of(made.store, made.run, "adapter").verdict.word == "not learned"
    assert any("20 of 20 ordinary messages" in line for line in gate_of(made.store, made.run, "adapter").broken)


def test_a_prompt_that_reaches_as_much_is_not_beaten(tmp_path: Path, tickets: Suite) -> None:
    answers = answers_of("ticket-triage")
    made = trained(tmp_path, tickets, answers)
    made.answer("evaluate", {"base": plainly, "prompted": lambda case: answers.get(case.case_id) or plainly(case)})
    found = evidence_of(made.store, made.run, "adapter")
    assert found.prompted == (79, 87)
    assert found.verdict.word == "learned" and found.verdict.beats["prompted"] is False


def test_noise_between_two_askings_of_the_base_is_counted(tmp_path: Path, tickets: Suite) -> None:
    made = Run(tmp_path, tickets)
    made.answer("baseline", {"base": plainly})
    answers = answers_of("ticket-triage")
    odd = {case.case_id for case in tickets.cases if case.block == "over-trigger"} - {"over-trigger-vat"}
    noisy = lambda case: '{"category": 1}' if case.case_id not in odd else plainly(case)  # noqa: E731
    made.answer("evaluate", {"base": noisy, "adapter": lambda case: answers.get(case.case_id) or plainly(case)})
    repeat = evidence_of(made.store, made.run, "adapter").repeat
    assert repeat and (repeat.flips, repeat.cases) == (1, 119)


def test_the_claim_rests_on_the_blind_cases_where_there_are_any(tmp_path: Path, tickets: Suite) -> None:
    """Passed in dev and failed in blind: the block as a whole would look well."""
    answers = answers_of("ticket-triage")
    blind = {case_id for n, case_id in enumerate(sorted(answers)) if n % 4 == 0}
    split = [
        case.model_copy(update={"metadata": {**case.metadata, "split": "blind"}}) if case.case_id in blind else case
        for case in tickets.cases
    ]
    suite = Suite(cases=tuple(split))
    made = trained(tmp_path, suite, {i: text for i, text in answers.items() if i not in blind})
    found = evidence_of(made.store, made.run, "adapter")
    assert found.verdict.people and found.verdict.people.cases == len(blind) == 22
    assert found.verdict.word == "not learned"
    whole = compare_with_hops(made.store, made.run, "base", "adapter").whole
    assert whole.blocks["target"].cases == 87 and whole.blocks["target"].verdict == "better"


def opened(store: Store, run: str, arm: str, model: str, cases: Sequence[Case]) -> None:
    digits = [case.request_sha256[:CASE_DIGITS] for case in cases]
    store.event(BLIND_OPENED, run=run, step="s1", arm=arm, model=model, cases=len(cases), suite="?", blind=digits)


@pytest.mark.heavy
def test_every_training_that_was_asked_the_blind_cases_before_is_an_opening(tmp_path: Path, tickets: Suite) -> None:
    cases = [case.model_copy(update={"metadata": {**case.metadata, "split": "blind"}}) for case in tickets.cases]
    made = trained(tmp_path, Suite(cases=tuple(cases)), answers_of("ticket-triage"))

    def opening() -> int:
        return evidence_of(made.store, made.run, "adapter").verdict.opening

    assert opening() == 1
    opened(made.store, made.run, "base", "w", cases)
    opened(made.store, made.run, "prompted", "w", cases)
    opened(made.store, made.run, "adapter", "other", [case.model_copy(update={"messages": ()}) for case in cases])
    assert opening() == 1, "the base, a prompt and other cases take nothing from them"
    opened(made.store, "r9", "adapter", "another training", cases[:3])
    assert opening() == 2, "of another run too, and of a part of them"
    opened(made.store, made.run, "adapter", "a" * 64, cases)
    opened(made.store, made.run, "adapter", "a third training", cases)
    assert opening() == 2, "what came later takes nothing from it"


def test_merged_and_quantized_belong_to_the_opening_of_their_training(tmp_path: Path, tickets: Suite) -> None:
    cases = [case.model_copy(update={"metadata": {**case.metadata, "split": "blind"}}) for case in tickets.cases]
    made, sha256s, parents = Run(tmp_path, Suite(cases=tuple(cases))), [], ()
    for kind in ("base", "adapter", "merged", "quantized"):
        step = made.build.step("train", arm=kind)
        parents = (made.build.artifact(step, kind, "", *parents),)
        made.build.end(step, 1.0, 1)
        sha256s.append(made.store.artifact(parents[0]).sha256)
    for arm, sha256 in zip(("adapter", "merged", "quantized"), sha256s[1:], strict=True):
        opened(made.store, made.run, arm, sha256, cases)
    made.answer("baseline", {"base": plainly})
    made.answer("evaluate", {"base": plainly, "adapter": plainly}, adapter=sha256s[1])
    made.answer("evaluate", {"quantized": plainly}, weights=sha256s[3])
    of = [evidence_of(made.store, made.run, arm).verdict.opening for arm in ("adapter", "quantized")]
    assert of == [1, 1]


@pytest.mark.parametrize("word", ["form only", "learned"])
def test_a_word_of_an_earlier_rule_stays_and_says_so(tmp_path: Path, tickets: Suite, word: str) -> None:
    made = Run(tmp_path, tickets)
    made.answer("baseline", {"base": plainly})
    old = {"claim": word, "claim_sentence": f"{word}: 80 of 87 target cases pass"}
    made.answer("evaluate", {"base": plainly, "adapter": plainly}, report=old)
    found = evidence_of(made.store, made.run, "adapter").verdict
    assert (found.word, found.rule) == (word, 1)
    assert found.sentence.startswith(f"{word} (by rule 1; today's is {RULE}): 80 of 87 target cases pass; ")
    made.answer("evaluate", {"base": plainly, "adapter": plainly}, report={**old, "claim_rule": RULE})
    assert evidence_of(made.store, made.run, "adapter").verdict.word == "not learned"


def test_a_run_without_its_suite_claims_nothing(tmp_path: Path, tickets: Suite) -> None:
    made = trained(tmp_path, tickets, answers_of("ticket-triage"))
    made.suite_path.unlink()
    assert evidence_of(made.store, made.run, "adapter").verdict.word == "no decision"
    assert evidence_of(made.store, made.run, "quantized").verdict.word == "no decision"


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
    assert told["controls"]["prompted"] is None and told["controls"]["constant"]["on_target"]["passed"] == 12
