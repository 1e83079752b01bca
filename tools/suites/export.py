"""Stored results in the formats that other tools read: promptfoo's results JSON (version 3) and JUnit XML.

Pure functions of cases and results. An arm is a column (promptfoo's prompt and provider), a case is a test. Nothing
is graded anew: named scores are added up from the stored verdicts.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree

from tunesmith.memory.records import EvalResult
from tunesmith.tools.suites.case import Case, canonical_sha256
from tunesmith.tools.suites.grading import Assertion, Grade, Response, asked, total
from tunesmith.tools.suites.metrics import DerivedMetric, derive, named_sums

RESULTS_VERSION = 3
_NONE, _ASSERT, _ERROR = 0, 1, 2  # promptfoo's ResultFailureReason
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def result_of_grade(case: Case, response: Response, graded: Grade, arm: str = "given") -> EvalResult:
    """A graded output in the shape that the store keeps."""
    return EvalResult(
        arm=arm,
        block=case.block,
        case_id=case.case_id,
        key_hash="",
        output=response.text if response.value is None else response.output_text,
        passed=None if graded.error else graded.passed,
        score=None if graded.error else graded.score,
        error=graded.error,
        tool_calls=[dict(call) for call in response.tool_calls],
        finish_reason=response.finish_reason or "",
        assertions=list(graded.assertions),
        latency_ms=response.latency_ms or 0.0,
    )


def promptfoo_document(
    cases: Sequence[Case],
    results: Sequence[EvalResult],
    *,
    name: str,
    at_s: float,
    derived: Sequence[DerivedMetric] = (),
) -> dict[str, object]:
    """promptfoo's results JSON, version 3. `at_s` is when the results were made, in seconds since 1970.

    Results of cases that are not among `cases` are left out.
    """
    by_id = {case.case_id: (index, case) for index, case in enumerate(cases)}
    known = [result for result in results if result.case_id in by_id]
    arms = list(dict.fromkeys(result.arm for result in known))
    rows = [_row(name, *by_id[result.case_id], result, arms.index(result.arm)) for result in known]
    timestamp = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    columns = [_column(arm, cases, [r for r in known if r.arm == arm], derived) for arm in arms]
    return {
        "evalId": f"eval-{name}-{timestamp[:19]}",
        "results": {
            "version": RESULTS_VERSION,
            "timestamp": timestamp,
            "prompts": columns,
            "results": rows,
            "stats": {
                **_counts(known),
                "tokenUsage": _tokens(known),
                "durationMs": sum(result.latency_ms for result in known),
            },
        },
        "config": {
            "description": f"tunesmith {name}",
            "prompts": ["{{question}}"],
            "providers": [{"id": f"tunesmith:{arm}", "label": arm} for arm in arms],
            "tests": [_test(case) for case in cases],
        },
        "shareableUrl": None,
        "metadata": {"exportedBy": "tunesmith", "evaluationCreatedAt": timestamp},
    }


def _counts(results: Sequence[EvalResult]) -> dict[str, int]:
    kinds = Counter(_failure(result) for result in results)
    return {"successes": kinds[_NONE], "failures": kinds[_ASSERT], "errors": kinds[_ERROR]}


def _failure(result: EvalResult) -> int:
    return _ERROR if result.passed is None else _NONE if result.passed else _ASSERT


def _tokens(results: Sequence[EvalResult]) -> dict[str, int]:
    prompt, completion = (sum(getattr(r, f"{kind}_tokens") for r in results) for kind in ("prompt", "completion"))
    return {
        "prompt": prompt,
        "completion": completion,
        "total": prompt + completion,
        "cached": 0,
        "numRequests": len(results),
    }


def _prompt_id(arm: str) -> str:
    return canonical_sha256(["tunesmith", arm])


def _column(
    arm: str, cases: Sequence[Case], results: Sequence[EvalResult], derived: Sequence[DerivedMetric]
) -> dict[str, object]:
    by_id = {case.case_id: case for case in cases}
    grades = [stored_grade(by_id[result.case_id], result) for result in results if result.passed is not None]
    verdicts = [a.passed for result in results for a in result.assertions]
    counts = _counts(results)
    scores, weights = named_sums(grades)
    return {
        "id": _prompt_id(arm),
        "raw": "{{question}}",
        "label": arm,
        "provider": f"tunesmith:{arm}",
        "metrics": {
            "score": sum(result.score or 0.0 for result in results),
            "testPassCount": counts["successes"],
            "testFailCount": counts["failures"],
            "testErrorCount": counts["errors"],
            "assertPassCount": sum(verdicts),
            "assertFailCount": len(verdicts) - sum(verdicts),
            "totalLatencyMs": sum(result.latency_ms for result in results),
            "tokenUsage": _tokens(results),
            "namedScores": {**scores, **derive(derived, grades)},
            "namedScoresCount": dict(Counter(name for grade in grades for name in grade.named_scores)),
            "namedScoreWeights": weights,
            "cost": 0,
        },
    }


def stored_grade(case: Case, result: EvalResult) -> Grade:
    """The stored verdict with its named scores; without them where the case was changed since."""
    if [entry.type for entry in result.assertions] != case.assertion_types:
        return Grade(bool(result.passed), result.score or 0.0)
    return total(case, result.assertions)


def _row(name: str, index: int, case: Case, result: EvalResult, column: int) -> dict[str, object]:
    failure = _failure(result)
    graded = stored_grade(case, result)
    named = dict(graded.named_scores)
    reason = result.error or graded.reason
    calls: object = result.tool_calls
    output = {"role": "assistant", "content": result.output, "tool_calls": calls} if calls and result.output else calls
    row: dict[str, object] = {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join((name, result.arm, case.case_id, str(result.repeat))))),
        "testIdx": index,
        "promptIdx": column,
        "promptId": _prompt_id(result.arm),
        "provider": {"id": f"tunesmith:{result.arm}", "label": result.arm},
        "prompt": {"raw": asked(case.messages), "label": result.arm},
        "vars": {**case.vars, "question": asked(case.messages)},
        "testCase": _test(case),
        "metadata": {**_metadata(case), "repeat": result.repeat},
        "response": {
            "output": output if calls else result.output,
            "finishReason": result.finish_reason,
            "tokenUsage": _tokens([result]),
            "cached": False,
        },
        "success": failure == _NONE,
        "score": result.score or 0.0,
        "failureReason": failure,
        "latencyMs": result.latency_ms,
        "namedScores": named,
        "tokenUsage": _tokens([result]),
        "cost": 0,
        "gradingResult": None
        if failure == _ERROR
        else {
            "pass": bool(result.passed),
            "score": result.score or 0.0,
            "reason": reason,
            "namedScores": named,
            "componentResults": _components(case, result),
        },
    }
    return row if failure == _NONE else {**row, "error": reason}


def _metadata(case: Case) -> dict[str, object]:
    return {**case.metadata, "case_id": case.case_id, "block": case.block}


def _test(case: Case) -> dict[str, object]:
    test = {
        "description": case.metadata.get("description") or case.case_id,
        "vars": {**case.vars, "question": asked(case.messages)},
        "assert": [_assertion(assertion) for assertion in case.assertions],
        "metadata": _metadata(case),
        "options": {},
    }
    return test if case.threshold is None else {**test, "threshold": case.threshold}


def _assertion(assertion: Assertion) -> dict[str, object]:
    given = assertion.model_dump(mode="json", include={"value", "threshold", "metric"}, exclude_none=True)
    weight = {} if assertion.weight == 1 else {"weight": assertion.weight}
    members = {"assert": [_assertion(child) for child in assertion.children]} if assertion.children else {}
    return {"type": assertion.type, **given, **weight, **members}


def _components(case: Case, result: EvalResult) -> list[dict[str, object]]:
    declared = [a for assertion in case.assertions for a in (assertion, *assertion.children)]
    same = [entry.type for entry in result.assertions] == case.assertion_types
    return [
        {
            "pass": entry.passed,
            "score": entry.score,
            "reason": entry.reason,
            "assertion": _assertion(declared[index]) if same else {"type": entry.type},
        }
        for index, entry in enumerate(result.assertions)
    ]


def junit_xml(cases: Sequence[Case], results: Sequence[EvalResult], *, name: str, at_s: float) -> str:
    """JUnit XML: a suite for each arm and block, a test case for each answer; an error is an error, not a failure."""
    order = {case.case_id: index for index, case in enumerate(cases)}
    known = sorted((r for r in results if r.case_id in order), key=lambda r: (order[r.case_id], r.repeat))
    root = ElementTree.Element("testsuites", {"name": _xml_text(f"tunesmith {name}"), **_totals(known)})
    timestamp = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds").replace("+00:00", "")
    for arm, block in dict.fromkeys((r.arm, r.block) for r in known):
        members = [r for r in known if (r.arm, r.block) == (arm, block)]
        title = _xml_text(f"{arm}.{block}")
        suite = ElementTree.SubElement(root, "testsuite", {"name": title, "timestamp": timestamp, **_totals(members)})
        for result in members:
            _junit_case(suite, title, result)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _totals(results: Sequence[EvalResult]) -> Mapping[str, str]:
    counts = _counts(results)
    return {
        "tests": str(len(results)),
        "failures": str(counts["failures"]),
        "errors": str(counts["errors"]),
        "skipped": "0",
        "time": _seconds(sum(result.latency_ms for result in results)),
    }


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.3f}"


def _junit_case(suite: ElementTree.Element, title: str, result: EvalResult) -> None:
    name = _xml_text(result.case_id + (f" (repeat {result.repeat})" if result.repeat else ""))
    time = _seconds(result.latency_ms)
    entry = ElementTree.SubElement(suite, "testcase", classname=title, name=name, time=time)
    if result.passed is None:
        error = ElementTree.SubElement(entry, "error", type="error", message=_xml_text(result.error or "no answer"))
        error.text = _xml_text(result.error or "no answer")
    elif not result.passed:
        failed = [f"{a.type}: {a.reason}" for a in result.assertions if not a.passed]
        message = _xml_text(failed[0] if failed else f"score {result.score:g} is under the threshold")
        failure = ElementTree.SubElement(entry, "failure", type="assertion", message=message)
        failure.text = _xml_text("\n".join([f"score: {result.score:g}", *failed, f"output: {result.output[:2000]}"]))


def _xml_text(text: str) -> str:
    """`text` without the characters that XML cannot hold at all."""
    return _NO_XML.sub("\ufffd", text)
