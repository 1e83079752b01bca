"""The model that was made, for who wants to use it: how to try it, where it is, and what it changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tunesmith.agent.commands import served_models
from tunesmith.agent.driver.facts import scores
from tunesmith.agent.driver.facts.answer import Answer, Question, clip, find, without_instruction
from tunesmith.agent.driver.facts.cases import wanted_of
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import Artifact, EvalResult, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, size
from tunesmith.tools.evaluation.ask import newest_tuned, run_to_ask
from tunesmith.tools.suites.case import PRIMARY_BLOCK, Case
from tunesmith.tools.suites.loading import read_suite

_PAIRS = 3
_EXAMPLE = "Where is my parcel?"


def answer(question: Question) -> Answer:
    """Raises NotFound where no model was made, or none was measured."""
    store, aspect = question.store, question.query.aspect
    if aspect == "changed":
        return before_and_after(store, question.run(with_stage="evaluate"), question.query.arm)
    run = find(store, question.query.run) if question.query.run else store.run(run_to_ask(store))
    return where_it_is(store, run) if aspect == "path" else try_it(store, run)


def try_it(store: Store, run: Run) -> Answer:
    """How to put a message to the model of a run, with one of its own as an example."""
    tuned, example = newest_tuned(store, run.id), _example(store, run)
    arms = f"the base and the {tuned.kind} model" if tuned else "the base, the only model so far,"
    served = tuned and any(line["artifact"] == tuned.id and line["healthy"] for line in _deployed(store))
    lines = [
        f"Type /ask and a message: {arms} of {run.id} ({clip(run.name, 40)}) answer it.",
        f"  /ask {example}",
        "It is served now; where the base is not, its start is priced first." if served else
        "What is not served is started for it, at its price and with your yes; it ends after ten idle minutes.",
        'From a shell: tunesmith ask "…". “where is my model?” tells the files.',
    ]  # fmt: skip
    told = f"/ask MESSAGE puts a message to {arms} of {run.id}."
    return Answer(tuple(lines), private=True, told=told)


def where_it_is(store: Store, run: Run) -> Answer:
    """Where the model of a run lies, and where it answers or how it comes to."""
    made = newest_tuned(store, run.id)
    if made is None:
        return Answer((f"{run.id} ({clip(run.name, 40)}) has made no model of its own yet, only its base.",))
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
    lines.append("“try the model” says how to ask it.")
    return Answer(tuple(lines))


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


def before_and_after(store: Store, run: Run, arm: str = "") -> Answer:
    """Three stored cases as the base and the tuned model answered them, a lost one among them where one was lost.

    No blind case: who reads these cannot choose by them any more. Raises NotFound where nothing was measured.
    """
    measured = [one for one in ("adapter", "merged", "quantized") if scores.step_of(store, run.id, one)]
    tuned = arm if arm in measured else (measured or [""])[-1]
    if not tuned:
        raise NotFound(f"{run.id} has measured no tuned model yet, so there is no after; “evaluate the adapter” does.")
    suite = scores.suite_of(store, scores.step_of(store, run.id, tuned))
    pairs = _pairs(store, run, tuned, suite)
    if not pairs:
        raise NotFound(f"{run.id} has no case that both the base and the {tuned} model answered, blind ones left out.")
    gained, lost = ([p for p in pairs if p.before.passed != p.after.passed and p.lost is was] for was in (False, True))
    chosen = [*gained[: _PAIRS - bool(lost)], *lost[:1], *lost[1:], *gained[_PAIRS - bool(lost) :]]
    chosen = [*chosen, *(pair for pair in pairs if pair not in chosen)][:_PAIRS]
    first = (
        f"{run.id}, base → {tuned}: of {count(len(pairs), 'case')} that are not blind {len(gained)} came to pass, "
        f"{len(lost)} {'was' if len(lost) == 1 else 'were'} lost. {count(len(chosen), 'example')}:"
    )
    wanted = wanted_of(store, run.id, suite)
    lines = [first, *(line for pair in chosen for line in _pair_lines(pair, tuned, wanted.get(pair.case.case_id, {})))]
    return Answer(tuple(lines), private=True, told=f"{first} They are on the screen.")


def _pairs(store: Store, run: Run, tuned: str, suite: str) -> list[_Pair]:
    cases = {case.case_id: case for case in _cases(store, run, suite) if not case.is_blind}
    before = {one.case_id: one for one in scores.results(store, run.id, "base", suite)}
    after = scores.results(store, run.id, tuned, suite)
    pairs = [
        _Pair(cases[one.case_id], before[one.case_id], one)
        for one in after
        if one.case_id in cases and one.case_id in before
    ]
    return sorted(pairs, key=lambda pair: pair.order)


def _cases(store: Store, run: Run, suite: str = "") -> tuple[Case, ...]:
    suites = [made for made in store.artifacts(run.id, "suite") if suite in ("", made.id)]
    return _read(suites[-1]) if suites else ()


def _read(suite: Artifact) -> tuple[Case, ...]:
    try:
        return read_suite(suite.path).cases
    except (OSError, ValueError, BadInput):  # gone, or of another version
        return ()


def _pair_lines(pair: _Pair, tuned: str, wanted: Mapping[str, str]) -> list[str]:
    values = ", ".join(f"{key} {clip(value, 60)}" for key, value in wanted.items())
    expected = f" (wanted: {values})" if values else ""
    lines = [f"  {clip(pair.case.case_id, 40)}: “{clip(_asked(pair.case), 160)}”{expected}"]
    for arm, one in (("base", pair.before), (tuned, pair.after)):
        verdict = "no answer" if one.passed is None else "passes" if one.passed else "fails"
        lines.append(f"    {arm} {verdict}: “{clip(one.output or '(nothing)', 170)}”")
    return lines


def _asked(case: Case) -> str:
    texts = [str(message.get("content", "")) for message in case.messages if message.get("role") == "user"]
    return without_instruction(texts[-1]) if texts else ""


def _example(store: Store, run: Run) -> str:
    """A message of the run's own kind, which is no blind case."""
    cases = [case for case in _cases(store, run) if case.block == PRIMARY_BLOCK and not case.is_blind]
    return clip(_asked(cases[0]), 120) if cases and _asked(cases[0]) else _EXAMPLE
