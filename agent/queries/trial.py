"""The model that was made, for who wants to use it: how to try it, where it is, and what it changed."""

from __future__ import annotations

from typing import Literal, NamedTuple

from tunesmith.agent.commands import served_models
from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Answer, AnyArm, Context, Query, RunName, clip, find, named
from tunesmith.agent.queries.described import asked_by, cases_of, wanted_of
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import EvalResult, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, size
from tunesmith.tools.evaluation.ask import newest_tuned, run_to_ask
from tunesmith.tools.suites.case import PRIMARY_BLOCK, Case

_PAIRS = 3
_EXAMPLE = "Where is my parcel?"


class TrialQuery(Query):
    """How to try the finished model, where it is, or answers before and after the training next to each other."""

    kind: Literal["trial"] = "trial"
    about: Literal["how", "where", "before_and_after"] = "how"
    run: RunName = ""
    arm: AnyArm = ""


def answer(query: TrialQuery, context: Context) -> Answer:
    """Raises NotFound where no model was made, or none was measured."""
    store = context.store
    if query.about == "before_and_after":
        return _before_and_after(store, context.run(query.run, with_stage="evaluate"), query.arm)
    run = find(store, query.run) if query.run else store.run(run_to_ask(store))
    return _where(store, run) if query.about == "where" else _how(store, run)


def _how(store: Store, run: Run) -> Answer:
    """How to put a message to the model of a run, with one of its own as an example, which is no blind case."""
    tuned = newest_tuned(store, run.id)
    open_cases = [c for c in cases_of(store, run.id).values() if c.block == PRIMARY_BLOCK and not c.is_blind]
    example = clip(asked_by(open_cases[0]), 120) if open_cases else ""
    arms = f"the base and the {tuned.kind} model" if tuned else "the base, the only model so far,"
    served = tuned and any(line["artifact"] == tuned.id and line["healthy"] for line in _deployed(store))
    lines = [
        f"Type /ask and a message: {arms} of {named(run)} answer it.",
        f"  /ask {example or _EXAMPLE}",
        "It is served now; where the base is not, its start is priced first." if served else
        "What is not served is started for it, at its price and with your yes; it ends after ten idle minutes.",
        'From a shell: tunesmith ask "…". “where is my model?” tells the files.',
    ]  # fmt: skip
    words = f"/ask MESSAGE puts a message to {arms} of {run.id}."
    return Answer(tuple(lines), private=True, open_words=words)


def _where(store: Store, run: Run) -> Answer:
    """Where the model of a run lies, and where it answers or how it comes to."""
    made = newest_tuned(store, run.id)
    if made is None:
        return Answer((f"{named(run)} has made no model of its own yet, only its base.",))
    lines = [f"The {made.kind} model of {run.id} ({made.id}, {size(made.bytes)}) lies in {made.path}."]
    if not made.path.exists():
        return Answer((*lines, f"That folder is gone: {store.step(made.step).stage} has to run again."))
    served = [line for line in _deployed(store) if line["artifact"] == made.id]
    for line in served:
        health = "" if line["healthy"] else ", and does not answer at the moment"
        lines.append(f"It is served at {line['url']}/v1 as {clip(line['model'], 60)}{health}.")
        lines.append(f"Its key is in {line['key_file']}.")
    if not served:
        lines.append(f"It is not served: “deploy the {made.kind} model” serves it, at its price and with your yes.")
    return Answer((*lines, "“try the model” says how to ask it."))


def _deployed(store: Store) -> list[dict[str, object]]:
    return [line for line in served_models.status(store) if line["role"] == "deployed"]


class _Pair(NamedTuple):
    """One case, answered before and after."""

    case: Case
    before: EvalResult
    after: EvalResult

    @property
    def order(self) -> tuple[bool, bool]:
        """The target first, and there what changed."""
        return self.case.block != PRIMARY_BLOCK, self.before.passed == self.after.passed

    @property
    def lost(self) -> bool:
        return bool(self.before.passed) and not self.after.passed


def _before_and_after(store: Store, run: Run, arm: str) -> Answer:
    """Three stored cases as the base and the tuned model answered them, a lost one among them where one was lost.

    No blind case: who reads these cannot choose by them any more. Raises NotFound where nothing was measured.
    """
    measured = [one for one in scores.TUNED if scores.step_of(store, run.id, one)]
    tuned = arm if arm in measured else (measured or [""])[-1]
    if not tuned:
        raise NotFound(f"{run.id} has measured no tuned model yet, so there is no after; “evaluate the adapter” does.")
    pairs = _pairs(store, run, tuned, scores.suite_of(store, scores.step_of(store, run.id, tuned)))
    if not pairs:
        raise NotFound(f"{run.id} has no case that both the base and the {tuned} model answered, blind ones left out.")
    gained, lost = ([p for p in pairs if p.before.passed != p.after.passed and p.lost is was] for was in (False, True))
    chosen = [*gained[: _PAIRS - bool(lost)], *lost[:1], *lost[1:], *gained[_PAIRS - bool(lost) :]]
    chosen = [*chosen, *(pair for pair in pairs if pair not in chosen)][:_PAIRS]
    first = (
        f"{run.id}, base → {tuned}: of {count(len(pairs), 'case')} that are not blind {len(gained)} came to pass, "
        f"{len(lost)} {'was' if len(lost) == 1 else 'were'} lost. {count(len(chosen), 'example')}:"
    )
    lines = [first, *(line for pair in chosen for line in _pair_lines(pair, tuned))]
    return Answer(tuple(lines), private=True, open_words=f"{first} They are on the screen.")


def _pairs(store: Store, run: Run, tuned: str, suite: str) -> list[_Pair]:
    cases = {name: case for name, case in cases_of(store, run.id, suite).items() if not case.is_blind}
    before = {one.case_id: one for one in scores.results(store, run.id, "base", suite)}
    after = scores.results(store, run.id, tuned, suite)
    pairs = [
        _Pair(cases[one.case_id], before[one.case_id], one)
        for one in after
        if one.case_id in cases and one.case_id in before
    ]
    return sorted(pairs, key=lambda pair: pair.order)


def _pair_lines(pair: _Pair, tuned: str) -> list[str]:
    values = ", ".join(f"{key} {clip(value, 60)}" for key, value in wanted_of(pair.case))
    expected = f" (wanted: {values})" if values else ""
    lines = [f"  {clip(pair.case.case_id, 40)}: “{clip(asked_by(pair.case), 160)}”{expected}"]
    for arm, one in (("base", pair.before), (tuned, pair.after)):
        verdict = "no answer" if one.passed is None else "passes" if one.passed else "fails"
        lines.append(f"    {arm} {verdict}: “{clip(one.output or '(nothing)', 170)}”")
    return lines
