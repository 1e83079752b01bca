"""Which values are taken for which: by an arm in its answers to the target cases, or by the reader of written rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError
from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.driver.facts import scores
from tunesmith.agent.driver.facts.answer import Answer, Question, cite, clip, listed
from tunesmith.agent.driver.facts.expected import expected_in, given_in, is_json
from tunesmith.agent.driver.facts.results import evaluated_run
from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE, Run

_LONGEST_VALUE = 40
"""Characters: a longer value is a text and no label, of which none is taken for another."""
Counts = Counter[tuple[str, str, str]]
"""(key, the right value, the one that was given) → how often."""


class _Trust(BaseModel):
    labels: dict[str, float] = {}


class _Read(BaseModel):
    """What the reader read, as the result of `generate` keeps it."""

    reader: _Trust = _Trust()
    """Label → share of the user's examples that it reads right."""
    read: dict[str, dict[str, dict[str, int]]] = {}
    """Label → as drawn → as read → how often."""


def answer(question: Question) -> Answer:
    """What was mixed up. Raises NotFound where nothing was measured, or no row was written."""
    of = {"reader": _of_reader, "checks": _of_checks}
    return of.get(question.query.text, _of_arm)(question)


def _of_checks(question: Question) -> Answer:
    """By which checks the cases of an arm fail, the commonest first."""
    run, arm, step = _arm_of(question)
    block = question.query.block or "target"
    given = [one for one in scores.results(question.store, run.id, arm) if one.block == block]
    failed = [one for one in given if one.passed is False]
    by: Counter[str] = Counter(
        kind for one in failed for kind in {a.type for a in one.assertions if not a.passed} or {"error"}
    )
    no_json = sum(not is_json(one.output) for one in given)
    first = f"In {run.id} {len(failed)} of {len(given)} {block} cases of the {arm} model ({step}) fail"
    lines = [f"{first}{': ' + ', '.join(f'{n} by {kind}' for kind, n in by.most_common(6)) if by else ''}."]
    if any(a.type == "is-json" for one in given for a in one.assertions):
        lines.insert(
            0, f"{no_json} of {len(given)} {block} answers of the {arm} model in {run.id} ({step}) are no JSON."
        )
    return Answer(tuple(lines))


def _arm_of(question: Question) -> tuple[Run, str, str]:
    """The run, the arm and the step of the answers that are meant. Raises NotFound."""
    store, run = question.store, evaluated_run(question)
    arms = [arm for arm in ARMS if scores.step_of(store, run.id, arm)]
    arm: str = question.query.arm or next((a for a in reversed(arms) if a not in ("base", "prompted")), arms[-1])
    step = scores.step_of(store, run.id, arm)
    if not step:
        raise NotFound(f"{run.id} has no answers of the {arm} arm; measured arms: {listed(arms)}.")
    return run, arm, step


def _of_arm(question: Question) -> Answer:
    store, (run, arm, step) = question.store, _arm_of(question)
    suite = scores.suite_of(store, step)
    wanted: Mapping[str, Mapping[str, str]] = next(
        (expected_in(str(made.path)) for made in store.artifacts(run.id, "suite") if made.id == suite), {}
    )
    seen: Counts = Counter()
    for one in scores.results(store, run.id, arm):
        for key, value in wanted.get(one.case_id, {}).items() if one.block == "target" else ():
            seen[key, value, given_in(one.output, key) or "no answer of this form"] += 1
    labels = {key for key, right, given in seen if max(len(right), len(given)) <= _LONGEST_VALUE}
    seen = Counter({cell: n for cell, n in seen.items() if cell[0] in labels and _is_label(seen, cell[0])})
    if not seen:
        return Answer((f"The cases of {run.id} are held to no label or value by name, so none can be mixed up.",))
    first = f"In {run.id} the {arm} model ({step})"
    return Answer(tuple(_told(first, seen)), lambda: _table(seen), private=True, told=f"{first}: on the screen")


def _is_label(seen: Counts, key: str) -> bool:
    """Whether a key's values come again, as labels do and numbers of orders do not."""
    values = Counter(right for (name, right, _), n in seen.items() if name == key for _ in range(n))
    return sum(values.values()) >= 2 * len(values)


def _told(first: str, seen: Counts) -> list[str]:
    wrong = Counter({cell: n for cell, n in seen.items() if cell[1] != cell[2]})
    total = sum(seen.values())
    if not wrong:
        return [f"{first} mixes nothing up: all {total} values are right."]
    (key, right, given), n = wrong.most_common(1)[0]
    lines = [
        f"{first} most often takes {key} {clip(right, 40)} for {clip(given, 40)}: {n} of "
        f"{sum(m for (k, r, _), m in seen.items() if (k, r) == (key, right))}."
    ]
    for name in dict.fromkeys(key for key, _, _ in seen):
        asked, missed = Counter[str](), Counter[str]()
        for (other, value, other_given), m in seen.items():
            asked[value] += m if other == name else 0
            missed[value] += m if other == name and value != other_given else 0
        worst = [f"{clip(value, 30)} {m} of {asked[value]}" for value, m in missed.most_common(6) if m]
        lines.append(f"  {name}, wrong by the right value: {'; '.join(worst) or 'none'}.")
    more = [f"{k} {clip(r, 24)} → {clip(g, 24)} {m}" for (k, r, g), m in wrong.most_common(6)]
    return [*lines[:4], f"  The commonest: {'; '.join(more)}."]


def _table(seen: Counts) -> RenderableType:
    rows = [[key, right, given, str(n)] for (key, right, given), n in sorted(seen.items())]
    return render.rows_table(["part", "right", "given", "how often"], rows, exact=True)


def _of_reader(question: Question) -> Answer:
    store, run = question.store, question.run(with_stage="generate")
    step = next((s for s in reversed(store.steps(run.id, status=DONE)) if s.stage == "generate"), None)
    if step is None:
        raise NotFound(f"{run.id} has no written rows, so nothing was read back.")
    try:
        found = _Read.model_validate(dict(step.report))
    except ValidationError:  # of another version
        return Answer((f"generate ({cite(step)}) kept no record of what its reader read.",))
    trusted = ", ".join(f"{name} {share:.0%}" for name, share in found.reader.labels.items())
    on_examples = f"Of the labels in your own examples it reads right: {trusted}." if trusted else ""
    seen: Counts = Counter(
        {
            (name, drawn, read): n
            for name, by in found.read.items()
            for drawn, of in by.items()
            for read, n in of.items()
        }
    )
    if not seen:
        says = f"The reader of generate ({cite(step)}) was asked for no label: it tells too few of your examples right."
        return Answer(tuple(line for line in (says, on_examples) if line))
    first = f"The reader of generate ({cite(step)})"
    return Answer((*_told(first, seen), *([on_examples] if on_examples else [])), lambda: _table(seen))
