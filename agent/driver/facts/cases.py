"""Single test cases: which an arm fails or lost, what was asked, what it answered and why that was not enough."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.driver.facts import scores
from tunesmith.agent.driver.facts.answer import (
    Answer,
    Question,
    clip,
    counted,
    find,
    listed,
    ordinary,
    without_instruction,
)
from tunesmith.agent.driver.facts.expected import expected_in
from tunesmith.agent.driver.facts.results import evaluated_run, kept_of_the_gain
from tunesmith.agent.driver.understanding.words import vocabulary
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import EvalResult, Run
from tunesmith.memory.store import Store
from tunesmith.tools.data.similarity import normal
from tunesmith.tools.evaluation.blind import hidden_cases
from tunesmith.tools.suites.loading import read_suite

_CHAIN = ("base", "prompted", "adapter", "merged", "quantized")
_FEW, _SOME, _SHOWN = 2, 5, 9


def answer(question: Question) -> Answer:
    """The cases that a question is about. Raises NotFound where the arm was never measured."""
    query = question.query
    run = evaluated_run(question)
    arm = query.arm or _last_arm(question.store, run.id)
    suite = _suite_of(question.store, run.id, arm)
    questions = asked_in(question.store, run.id, suite)
    if query.aspect in ("count", "list") and not (query.outcome or query.text or query.arm or query.field):
        return _suite(question, run, questions)
    if query.text:
        for one in [run] if query.run else [run, *(r for r in ordinary(question.store) if r.id != run.id)]:
            told = _told_of(question, one)
            if told is not None:
                return told
        return Answer(
            (
                f"Nothing of that was measured: no case of {run.id} speaks of “{clip(query.text, 80)}”; “which cases "
                f"failed” lists what there is.",
            )
        )
    hidden = hidden_cases(question.store, run.id)
    given = [one for one in scores.results(question.store, run.id, arm, suite) if query.block in ("", one.block)]
    given, label = _of_label(given, query.field, wanted_of(question.store, run.id, suite))
    if not given:
        arms = listed(list(dict.fromkeys(s.arm for s in scores.of_run(question.store, run.id)))) or "none"
        raise NotFound(f"{run.id} has no answers of the {arm} arm{_of(query.block)}; measured arms: {arms}.")
    if query.other_run:
        return _of_two_runs(question, run, arm, given, questions)
    if query.outcome in ("lost", "gained", "flipped"):
        return _flips(question, run, arm, given, questions)
    if query.aspect == "list" and not query.outcome:
        passed = sum(one.passed is True for one in given)
        what = " ".join(word for word in (query.block, label, "cases") if word)
        return _listed(
            f"In {run.id} the {arm} model passes {passed} of {len(given)} {what}; its answers:",
            given,
            questions,
            hidden=hidden,
        )
    wanted = {"passed": True, "error": None}.get(query.outcome, False)
    chosen = [one for one in given if one.passed is wanted]
    if query.outcome == "failed" and query.other_arm:
        also = {one.case_id for one in scores.results(question.store, run.id, query.other_arm) if one.passed is False}
        chosen = [one for one in chosen if one.case_id in also]
        first = f"{len(chosen) or 'None'} of the {len(given)} cases of {run.id} are failed by both {arm} and "
        return _listed(f"{first}{query.other_arm}.", chosen, questions, hidden=hidden)
    what = " ".join(word for word in (query.block, label) if word)
    return _listed(_headline(query.outcome, run, arm, what, chosen, given), chosen, questions, hidden=hidden)


def _of_label(
    given: list[EvalResult], label: str, wanted: Mapping[str, Mapping[str, str]]
) -> tuple[list[EvalResult], str]:
    """Those of a label, by the value that is wanted of them or by their id, and the label; all where no case has it."""
    chosen = [one for one in given if label in wanted.get(one.case_id, {}).values() or label in one.case_id.split("-")]
    return (chosen, label) if label and chosen else (given, "")


def _told_of(question: Question, run: Run) -> Answer | None:
    """What the arms of a run answered to the case that the words speak of; None where it was asked no such case.

    Looked for in every suite that the run was measured on, the newest first: by its id, by its very words, then by what
    it speaks of.
    """
    store, text = question.store, question.query.text
    asked: list[tuple[str, set[str], Mapping[str, str]]] = []
    hidden = hidden_cases(store, run.id)
    for suite in [a.id for a in reversed(store.artifacts(run.id, "suite"))] or [""]:
        given = {one.case_id for arm in _CHAIN if question.query.arm in ("", arm)
                 for one in scores.results(store, run.id, arm, suite)}  # fmt: skip
        given -= hidden
        asked.append((suite, given, asked_in(store, run.id, suite)))
    finders: tuple[Callable[[set[str], Mapping[str, str]], list[str]], ...] = (
        lambda given, _: sorted((case for case in given if case.lower() in text.lower()), key=len, reverse=True),
        lambda given, said: [case for case in said if case in given and normal(said[case]) == normal(text)],
        lambda given, said: [case for case in matching(text, said) if case in given],
    )
    for finder in finders:
        for suite, given, questions in asked:
            if named := finder(given, questions):
                return _of_text(question, run, named, questions, suite)
    return None


def _suite_of(store: Store, run: str, arm: str) -> str:
    step = scores.step_of(store, run, arm)
    return scores.suite_of(store, step) if step else ""


def _suite(question: Question, run: Run, questions: Mapping[str, str]) -> Answer:
    """How many cases of which block a run was measured on, and some of them."""
    query = question.query
    arm = _last_arm(question.store, run.id)
    given = scores.results(question.store, run.id, arm)
    counts = Counter(one.block for one in given)
    told = ", ".join(f"{n} {block}" for block, n in counts.items())
    first = f"{run.id} is measured on {len(given)} cases: {told}."
    if query.block:
        first = f"The {query.block} block of {run.id} has {counts[query.block]} cases, of {len(given)} in all ({told})."
    chosen = [one for one in given if query.block in ("", one.block)]
    chosen, blind = _open(chosen, hidden_cases(question.store, run.id))
    lines = [first]
    if query.aspect == "list" or query.block:
        lines += [f"  {clip(one.case_id, 40)}{_said_as(questions.get(one.case_id, ''), 70)}" for one in chosen[:4]]
        lines += [f"{len(chosen) - 4} more; “show all” lists them with the answers."] if len(chosen) > 4 else []
        lines += blind
    suite = _suite_of(question.store, run.id, arm)
    if suites := [made for made in question.store.artifacts(run.id, "suite") if suite in ("", made.id)]:
        lines.append(f"The suite ({suites[-1].id}) lies in {suites[-1].path}.")
    return Answer(tuple(lines), lambda: _page(chosen, questions), private=True, told=first)


def _said_as(question: str, most: int) -> str:
    return f": “{clip(question, most)}”" if question else ""


def _last_arm(store: Store, run: str) -> str:
    arms = [arm for arm in _CHAIN if scores.step_of(store, run, arm)]
    tuned = [arm for arm in arms if arm not in ("base", "prompted")]
    return (tuned or arms or ["adapter"])[-1]


def _of(block: str) -> str:
    return f" on the {block} block" if block else ""


def _headline(
    outcome: str, run: Run, arm: str, block: str, chosen: Sequence[EvalResult], given: Sequence[EvalResult]
) -> str:
    judged = sum(one.passed is not None for one in given)
    passed = sum(one.passed is True for one in given)
    what = f"{block} cases" if block else "cases"
    if outcome == "passed":
        return f"In {run.id} the {arm} model passes {passed} of {judged} {what}."
    if outcome == "error":
        return f"In {run.id} {len(chosen) or 'none'} of {len(given)} {what} of the {arm} model ended in an error."
    if not chosen:
        return f"In {run.id} the {arm} model fails none of the {judged} {what}: {passed} of {judged} passed."
    return f"In {run.id} the {arm} model fails {len(chosen)} of {judged} {what} (passes {passed} of {judged}):"


def _open(chosen: Sequence[EvalResult], hidden: frozenset[str]) -> tuple[list[EvalResult], list[str]]:
    """The answers to cases that may be seen, and a line about the others."""
    seen = [one for one in chosen if one.case_id not in hidden]
    blind = len(chosen) - len(seen)
    return seen, [f"{counted(blind, 'blind case')} more, unseen before `compare --open-blind`."] * bool(blind)


def _listed(
    headline: str,
    chosen: Sequence[EvalResult],
    questions: Mapping[str, str],
    more: str = "",
    *,
    hidden: frozenset[str],
) -> Answer:
    """The headline, and the cases below it: the fewer they are, the more of each."""
    chosen, blind = _open(chosen, hidden)
    lines = [headline]
    for one in chosen[:_SHOWN]:
        lines += _case_lines(one, questions, len(chosen))
    if len(chosen) > _SHOWN:
        lines.append(f"{len(chosen) - _SHOWN} more; “show all” lists every one.")
    lines += [*blind, *([more] if more else [])]
    opening = f"{headline} {listed([one.case_id for one in chosen], 12)}"
    return Answer(tuple(lines), lambda: _page(chosen, questions), private=True, told=opening)


def _case_lines(one: EvalResult, questions: Mapping[str, str], among: int) -> list[str]:
    question, output = questions.get(one.case_id, ""), one.output or _calls(one) or "(nothing)"
    if among <= _FEW:
        return [
            f"  {clip(one.case_id, 60)}{_said_as(question, 150)}",
            f"    answered: “{clip(output, 210)}”",
            *([f"    {clip(_reason(one), 160)}"] if not one.passed and _reason(one) else []),
        ]
    if among <= _SOME:
        return [f"  {clip(one.case_id, 50)}{_said_as(question, 60)}", f"    answered: “{clip(output, 100)}”"]
    short = clip(one.case_id, 32)
    return [f"  {short}: “{clip(output, max(108 - len(short), 60))}”"]


def _calls(one: EvalResult) -> str:
    calls = [call.get("function") for call in one.tool_calls if isinstance(call, dict)]
    named = [function for function in calls if isinstance(function, dict)]
    return "; ".join(f"calls {function.get('name')}, arguments {function.get('arguments')}" for function in named)


def _reason(one: EvalResult) -> str:
    if one.error:
        return f"error: {one.error}"
    return next((f"{a.type}: {a.reason}" for a in one.assertions if not a.passed), "")


def _page(chosen: Sequence[EvalResult], questions: Mapping[str, str]) -> RenderableType:
    rows = [[r.case_id, r.block, clip(questions.get(r.case_id, ""), 400), clip(r.output or _calls(r), 600), _verdict(r)]
            for r in chosen]  # fmt: skip
    return render.rows_table(["case", "block", "asked", "answered", "verdict"], rows, exact=True)


def _verdict(one: EvalResult) -> str:
    return "error" if one.passed is None else "pass" if one.passed else f"fail: {clip(_reason(one), 160)}"


def _flips(question: Question, run: Run, arm: str, given: Sequence[EvalResult], questions: Mapping[str, str]) -> Answer:
    """What flipped between an arm and the one before it, lost cases first."""
    query = question.query
    suite = _suite_of(question.store, run.id, arm)
    other: str = query.other_arm
    unmeasured = ""
    if not other or not scores.step_of(question.store, run.id, other, suite):
        unmeasured = f" (the {other} model was not measured)" if other else ""
        other = _before(question.store, run.id, arm, query.outcome, suite)
    before = {one.case_id: one for one in scores.results(question.store, run.id, other, suite)} if other else {}
    pairs = [(before[one.case_id], one) for one in given if one.case_id in before]
    pairs = [(a, b) for a, b in pairs if a.passed is not None and b.passed is not None]
    if not pairs:
        raise NotFound(f"{run.id} has no two arms to hold against each other{_of(query.block)}; evaluate one first.")
    hidden = hidden_cases(question.store, run.id)
    lost = [b for a, b in pairs if a.passed and not b.passed]
    gained = [b for a, b in pairs if b.passed and not a.passed]
    n, passed = len(pairs), sum(bool(b.passed) for _, b in pairs)
    was = sum(bool(a.passed) for a, _ in pairs)
    what = f"{query.block} cases" if query.block else "cases"
    one = what.removesuffix("s")
    score = f"{other} passes {was} of {n}, {arm} passes {passed} of {n}{unmeasured}"
    if query.outcome == "gained":
        first = f"{len(gained) or 'No'} {what} of {run.id} were gained from {other} to {arm}: {score}."
        return _listed(first, gained, questions, f"{len(lost)} were lost." if lost else "None was lost.", hidden=hidden)
    if query.outcome == "flipped":
        first = f"{len(lost) + len(gained)} {what} of {run.id} flipped from {other} to {arm}, {len(lost)} lost and "
        return _listed(f"{first}{len(gained)} gained: {score}.", [*lost, *gained], questions, hidden=hidden)
    count = f"1 {one}" if len(lost) == 1 else f"{len(lost) or 'no'} {what}"
    first = (
        f"{'Yes' if lost else 'No'}: {count} of {run.id} {'was' if len(lost) == 1 else 'were'} lost "
        f"from {other} to {arm}: {score}."
    )
    kept = "" if query.block else kept_of_the_gain(question.store, run.id, arm)
    return _listed(first, lost, questions, f"{len(gained) or 'None'} gained. {kept}".strip(), hidden=hidden)


def _of_two_runs(
    question: Question, run: Run, arm: str, given: Sequence[EvalResult], questions: Mapping[str, str]
) -> Answer:
    """The cases that one run passes and another fails, of those that both were asked."""
    other = find(question.store, question.query.other_run)
    failed = {one.case_id: one.passed for one in scores.results(question.store, other.id, arm)}
    both = [one for one in given if failed.get(one.case_id) is not None and one.passed is not None]
    if not both:
        raise NotFound(f"{run.id} and {other.id} were asked no case in common with their {arm} models.")
    chosen = [one for one in both if one.passed and not failed[one.case_id]]
    first = (
        f"{len(chosen) or 'None'} of the {len(both)} cases that both were asked are passed by {run.id}'s {arm} model "
    )
    hidden = hidden_cases(question.store, run.id) | hidden_cases(question.store, other.id)
    return _listed(f"{first}and failed by {other.id}'s.", chosen, questions, hidden=hidden)


def _before(store: Store, run: str, arm: str, outcome: str, suite: str) -> str:
    """The arm that a flip is counted from: for what was lost the nearest before it, for what was gained the base."""
    earlier = [
        one for one in _CHAIN[: _CHAIN.index(arm)] if one != "prompted" and scores.step_of(store, run, one, suite)
    ]
    if not earlier:
        return ""
    return earlier[0] if outcome == "gained" else earlier[-1]


def _of_text(question: Question, run: Run, named: Sequence[str], questions: Mapping[str, str], suite: str) -> Answer:
    """What the arms answered to the case that the words speak of: the named arm, else base and the newest."""
    query, store = question.query, question.store
    if re.fullmatch(r"[a-z]\S*-\d+", query.text) and query.text not in (*questions, *named):
        near = listed([clip(one, 40) for one in named[:4]])
        return Answer((f"{run.id} asked no case {query.text}, among {len(questions)}. Near it: {near}.",))
    arms = [query.arm] if query.arm else [arm for arm in _CHAIN if scores.step_of(store, run.id, arm, suite)]
    case = named[0]
    if query.other_arm:
        arms = [query.other_arm, *arms]
    lines = [f"{run.id}, case {clip(case, 60)}{_said_as(questions.get(case, ''), 220)}"]
    facts: list[EvalResult] = []
    for arm in arms:
        for one in scores.results(store, run.id, arm, suite):
            if one.case_id == case:
                facts.append(one)
                verdict = "error" if one.passed is None else "passes" if one.passed else "fails"
                lines.append(f"{arm} ({verdict}): “{clip(one.output or _calls(one), 330 if len(arms) == 1 else 170)}”")
    if not facts:
        return Answer((f"The {query.arm} arm of {run.id} was not asked {clip(case, 60)}.",))
    if wanted := wanted_of(store, run.id, suite).get(case):
        lines.append(f"  wanted: {', '.join(f'{key} {clip(value, 60)}' for key, value in wanted.items())}")
    reason = _reason(facts[-1]) if not facts[-1].passed else ""
    lines += [f"  why: {clip(reason, 200)}"] if reason else []
    if query.aspect == "why":  # what was wanted of it, before what was answered
        lines = [lines[0], *sorted(lines[1:], key=lambda line: not line.startswith("  "))]
    if len(named) > 1:
        lines.append(f"Near it: {listed([clip(one, 40) for one in named[1:4]])}.")
    return Answer(
        tuple(lines), lambda: _page(facts, questions), private=True, told=f"case {case} of {run.id} is on the screen"
    )


# What was asked, and what is wanted


def wanted_of(store: Store, run: str, suite: str) -> Mapping[str, Mapping[str, str]]:
    """Case → key → the value that its checks name; empty where they name none."""
    made = [one for one in store.artifacts(run, "suite") if suite in ("", one.id)]
    return expected_in(str(made[-1].path)) if made else {}


def asked_in(store: Store, run: str, suite: str = "") -> Mapping[str, str]:
    """Case → what it asks, of a suite of the run, or of its newest; empty where its file is gone."""
    suites = [made for made in store.artifacts(run, "suite") if suite in ("", made.id)]
    return _read(str(suites[-1].path)) if suites else {}


@lru_cache(maxsize=8)
def _read(path: str) -> Mapping[str, str]:
    from pathlib import Path

    try:
        suite = read_suite(Path(path))
    except (OSError, ValueError, BadInput):
        return {}
    return {case.case_id: _last_words(case.messages) for case in suite.cases}


def _last_words(messages: Sequence[Mapping[str, object]]) -> str:
    texts = [str(message.get("content", "")) for message in messages if message.get("role") == "user"]
    return without_instruction(texts[-1]) if texts else ""


def matching(words: str, questions: Mapping[str, str]) -> list[str]:
    """The cases that some words speak of, the likeliest first; none where nothing telling is shared."""
    wanted = set(_stems(words))
    by_case = {case: Counter([*_stems(text), *_stems(case.replace("-", " "))]) for case, text in questions.items()}
    if exact := [case for case in questions if case.lower() in words.lower()]:
        return sorted(exact, key=len, reverse=True)
    documents = Counter(stem for stems in by_case.values() for stem in stems)
    weight = {stem: math.log(1 + len(by_case) / documents[stem]) for stem in wanted if documents[stem]}
    scored = [
        (sum(weight[stem] for stem in wanted if stem in weight and stem in stems), case)
        for case, stems in by_case.items()
    ]
    best = sorted((one for one in scored if one[0] > 0), key=lambda one: (-one[0], one[1]))
    if not best or best[0][0] < 0.3 * sum(weight.values()) or best[0][0] < math.log(3):
        return []
    return [case for score, case in best[:5] if score >= 0.6 * best[0][0]]


def _stems(text: str) -> list[str]:
    words = re.findall(r"[^\W_]{3,}", text.lower())
    return [_stem(word) for word in words if word not in vocabulary().common]


def _stem(word: str) -> str:
    for ending in ("ingly", "ings", "ing", "ied", "ies", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)].rstrip("e")
    return word.rstrip("e")
