"""Stored results as promptfoo's JSON and as JUnit XML. `make crosscheck` has promptfoo itself import the first."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.fixtures.demo_run import tunesmith
from tunesmith.memory.records import AssertionResult, EvalResult
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.suites.export import junit_xml, promptfoo_document
from tunesmith.tools.suites.loading import load_suites

SUITE = """
prompts: ["{{q}}"]
derivedMetrics: [{name: rate, value: "form / __count"}]
tests:
  - vars: {q: a}
    metadata: {case_id: one, block: target}
    description: the first
    assert:
      - {type: contains, value: "{", weight: 3, metric: form}
      - type: assert-set
        threshold: 0.5
        assert: [{type: equals, value: x, metric: form}, {type: not-contains, value: y}]
  - {vars: {q: b}, metadata: {case_id: two, block: general}, threshold: 0.9, assert: [{type: equals, value: b}]}
"""


def verdict(kind: str, passed: bool) -> AssertionResult:
    return AssertionResult(kind, passed, float(passed), "passed" if passed else f"<{kind}> & no")


def result(arm: str, case_id: str, passed: bool | None, **more: object) -> EvalResult:
    block = "target" if case_id == "one" else "general"
    score = None if passed is None else float(passed)
    return EvalResult(
        arm=arm, block=block, case_id=case_id, key_hash="k", output="{", passed=passed, score=score, **more
    )  # type: ignore[arg-type]


FIRST = [
    verdict("contains", True),
    verdict("assert-set", True),
    verdict("equals", False),
    verdict("not-contains", True),
]
RESULTS = [
    result("base", "one", True, assertions=FIRST, latency_ms=1500.0, prompt_tokens=7, completion_tokens=3),
    result("base", "two", False, assertions=[verdict("equals", False)]),
    result("adapter", "one", None, error="HTTP 500: \x00 <gone>"),
    result("adapter", "two", True, assertions=[verdict("equals", True)], tool_calls=[{"function": {"name": "f"}}]),
    result("adapter", "forgotten", True),
]


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    path = tmp_path / "s.yaml"
    path.write_text(SUITE)
    return load_suites([path])


def document(suite: Suite) -> dict[str, object]:
    made = promptfoo_document(suite.cases, RESULTS, name="run-1", at_s=1.8e9, derived=suite.derived_metrics)
    loaded: dict[str, object] = json.loads(json.dumps(made, allow_nan=False))
    return loaded


def test_a_results_file_holds_every_answer_by_test_and_arm(suite: Suite) -> None:
    results = document(suite)["results"]
    assert isinstance(results, dict)
    assert results["version"] == 3
    found = [(r["testIdx"], r["promptIdx"], r["success"], r["failureReason"]) for r in results["results"]]
    assert found == [(0, 0, True, 0), (1, 0, False, 1), (0, 1, False, 2), (1, 1, True, 0)]
    counted = {key: results["stats"][key] for key in ("successes", "failures", "errors")}
    assert counted == {"successes": 2, "failures": 1, "errors": 1}
    assert [prompt["label"] for prompt in results["prompts"]] == ["base", "adapter"]
    assert results["stats"]["tokenUsage"]["total"] == 10


def test_named_and_derived_scores_are_added_up_from_the_stored_verdicts(suite: Suite) -> None:
    results = document(suite)["results"]
    assert isinstance(results, dict)
    # contains weighs 3 and scores 1, equals (in the set) weighs 1 and scores 0.
    assert results["results"][0]["namedScores"] == {"form": 0.75}
    assert results["prompts"][0]["metrics"]["namedScores"] == {"form": 3.0, "rate": 1.5}
    components = results["results"][0]["gradingResult"]["componentResults"]
    assert [c["assertion"]["type"] for c in components] == [a.type for a in FIRST]
    assert components[0]["assertion"] == {"type": "contains", "value": "{", "weight": 3.0, "metric": "form"}


def test_an_error_is_reported_as_one_and_a_call_as_the_output(suite: Suite) -> None:
    results = document(suite)["results"]
    assert isinstance(results, dict)
    error, call = results["results"][2], results["results"][3]
    assert error["gradingResult"] is None
    assert "HTTP 500" in error["error"]
    assert call["response"]["output"]["tool_calls"] == [{"function": {"name": "f"}}]


def test_junit_tells_failures_from_errors_and_survives_any_text(suite: Suite) -> None:
    root = ElementTree.fromstring(junit_xml(suite.cases, RESULTS, name="run-1", at_s=1.8e9))
    assert {k: root.attrib[k] for k in ("tests", "failures", "errors")} == {
        "tests": "4",
        "failures": "1",
        "errors": "1",
    }
    found = {
        (e.attrib["classname"], e.attrib["name"]): [child.tag for child in e] for e in root.iter("testcase")
    }  # fmt: skip
    assert found == {
        ("base.target", "one"): [],
        ("base.general", "two"): ["failure"],
        ("adapter.target", "one"): ["error"],
        ("adapter.general", "two"): [],
    }
    message = next(root.iter("error")).attrib["message"]
    assert message == "HTTP 500: \ufffd <gone>"
    assert "<equals> & no" in (next(root.iter("failure")).text or "")


def test_a_verdict_of_another_suite_exports_without_its_parts(suite: Suite) -> None:
    changed: list[Case] = [case.model_copy(update={"assertions": case.assertions[:1]}) for case in suite.cases]
    rows = promptfoo_document(changed, RESULTS[:1], name="r", at_s=0.0)["results"]["results"]
    assert rows[0]["success"] is True
    assert rows[0]["namedScores"] == {}


@pytest.mark.parametrize("format_", ["promptfoo", "junit"])
def test_suite_grade_writes_either_format_to_stdout(format_: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("tests: [{providerOutput: hi, metadata: {case_id: c}, assert: [{type: equals, value: ho}]}]")
    done = tunesmith(tmp_path / "home", "suite", "grade", str(path), "--format", format_)
    assert done.returncode == 0, done.stderr
    if format_ == "junit":
        assert ElementTree.fromstring(done.stdout).attrib["failures"] == "1"
    else:
        assert json.loads(done.stdout)["results"]["stats"]["failures"] == 1
