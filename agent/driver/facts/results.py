"""What passed: an arm's score on a block, the whole chain of a run, two arms or two runs against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.driver.facts import scores, settings
from tunesmith.agent.driver.facts.answer import Answer, Question, clip, counted, find, listed, ordinary
from tunesmith.agent.driver.facts.scores import Score
from tunesmith.memory.errors import NotFound, TunesmithError
from tunesmith.memory.records import DONE, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import duration
from tunesmith.tools.evaluation.comparison import Comparison
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.evaluation.likelihood_retained import likelihood_retained
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.evaluation.retained import gain_retained
from tunesmith.tools.suites.case import BLOCKS

_CHAIN = ("base", "prompted", "adapter", "merged", "quantized")


def answer(question: Question) -> Answer:
    """What passed, as far as arm and block were named. Raises NotFound where nothing was measured."""
    from tunesmith.agent.commands.summary import summarise, summary_view

    store, query = question.store, question.query
    run = evaluated_run(question)
    if query.aspect == "speed":
        return Answer(tuple(_speeds(store, run)))
    measured = scores.of_run(store, run.id)
    chosen = [s for s in measured if query.arm in ("", s.arm) and query.block in ("", s.block)]
    if not chosen:
        return _not_measured(run, measured, query.arm, query.block)

    def page() -> RenderableType:
        return Group(summary_view(summarise(store, run.id)))

    name = f"{run.id} ({clip(run.name, 40)})"
    if query.arm and query.block:
        return Answer(tuple(_one_score(store, run, chosen[0], measured)), page)
    lines = verdict_lines(store, run)[:2] if not query.arm and not query.block else []
    if query.arm:
        lines.append(
            f"{name}, {query.arm}: " + "; ".join(f"{s.block} {s.told}" for s in chosen) + f" ({chosen[0].step})."
        )
        lines += [_against(store, run.id, query.arm)] if query.arm != "base" else []
        return Answer(tuple(line for line in lines if line), page)
    for block in dict.fromkeys(s.block for s in chosen):
        lines.append(f"{block} in {run.id}: " + "; ".join(f"{s.arm} {s.told}" for s in chosen if s.block == block))
    tuned = [s.arm for s in chosen if s.arm != "base"]
    if query.block and tuned:
        lines.append(_against(store, run.id, tuned[-1], query.block))
    return Answer(tuple(line for line in lines if line), page)


def _speeds(store: Store, run: Run) -> list[str]:
    """How long the answers of each arm took in its newest evaluation, where many are asked for at once."""
    told = []
    for arm in _CHAIN:
        answers = [one for one in scores.results(store, run.id, arm) if one.completion_tokens]
        if answers:
            seconds = median(one.latency_ms for one in answers) / 1000
            tokens = median(one.completion_tokens for one in answers)
            told.append(f"{arm} {seconds:.1f} s for {tokens:.0f} tokens")
    if not told:
        return [f"{run.id} has no measured answers whose time is known."]
    return [
        f"An answer took in the middle, in {run.id}: {'; '.join(told)}.",
        "Measured with many questions at once, so one alone is answered sooner.",
    ]


def verdict_lines(store: Store, run: Run) -> list[str]:
    """The verdict on the last arm, what passed of the target arm by arm, and what became of the general block."""
    measured = scores.of_run(store, run.id)
    target = [s for s in measured if s.block == "target"]
    tuned = [s for s in target if s.arm in _CHAIN[2:]]
    base = next((s for s in target if s.arm == "base"), None)
    if not target:
        return []
    name = f"{run.id} ({clip(run.name, 40)})"
    if not tuned:
        return [f"{name}: nothing tuned was measured yet; the base passes {target[0].told} target cases."]
    arm = tuned[-1].arm
    found = evidence_of(store, run.id, arm).verdict
    passed = ", ".join(f"{s.arm} {s.told}" for s in tuned)
    first = f"{name}, {arm}: {found.word}; of all target cases pass: base {base.told if base else '–'}, {passed}."
    second = f"The claim for its {arm} model: {clip(found.sentence, 500)}."
    general = [f"{s.arm} {s.passed} of {s.judged}" for s in measured if s.block == "general"]
    return [first, second, *([f"General block: {', '.join(general)}."] if general else [])]


def evaluated_run(question: Question) -> Run:
    """The run that is meant: where none is named, the newest with measured answers. Raises NotFound."""
    if question.query.run or question.query.step:
        return question.run()
    runs = [*([question.current] if question.current else []), *ordinary(question.store)]
    tuned = "arm IN ('adapter', 'merged', 'quantized')"
    for wanted in ["1"] if question.query.arm == "base" else [tuned, "1"]:
        for run in runs:
            if question.store.read(f"SELECT 1 FROM eval_results WHERE run = ? AND {wanted} LIMIT 1", run.id):
                return run
    raise NotFound("Nothing was measured yet: no run has a baseline or an evaluation.")


def _not_measured(run: Run, measured: Sequence[Score], arm: str, block: str) -> Answer:
    arms = listed(list(dict.fromkeys(s.arm for s in measured))) or "none"
    blocks = listed(list(dict.fromkeys(s.block for s in measured))) or "none"
    what = " ".join(
        part for part in (f"the {arm} arm" if arm else "", f"on the {block} block" if block else "") if part
    )
    return Answer((f"{run.id} has no results of {what or 'any arm'}; measured are: arms {arms}; blocks {blocks}.",))


def _one_score(store: Store, run: Run, score: Score, measured: Sequence[Score]) -> list[str]:
    lines = [f"{score.arm} passes {score.told} {score.block} cases in {run.id} ({score.step})."]
    beside = [s for s in measured if s.block == score.block and s.arm != score.arm]
    if beside:
        lines.append("Beside it: " + "; ".join(f"{s.arm} {s.told}" for s in beside) + ".")
    if score.arm != "base":
        lines.append(_against(store, run.id, score.arm, score.block))
    return [line for line in lines if line]


def _against(store: Store, run: str, arm: str, block: str = "") -> str:
    """An arm against the base in a line; empty where they cannot be compared."""
    try:
        compared = compare_run(store, run, "base", arm)
    except TunesmithError:
        return ""
    return hop(compared, block)


def hop(compared: Comparison, block: str = "") -> str:
    """A comparison in a sentence: what was gained and lost, whether chance explains it."""
    a, b = compared.arms
    if not compared.comparable:
        return f"{a} → {b} are not comparable: {clip(compared.refused or ', '.join(compared.differs_in), 160)}"
    parts = [
        f"{name} {counts.verdict} ({counts.fail_to_pass} gained, {counts.pass_to_fail} lost{_p(counts.p_value)})"
        for name, counts in compared.blocks.items()
        if block in ("", name)
    ]
    return f"{a} → {b}: {'; '.join(parts)}." if parts else ""


def _p(p_value: float | None) -> str:
    return "" if p_value is None else ", p < 0.001" if p_value < 0.001 else f", p = {p_value:.2g}"


def compare(question: Question) -> Answer:
    """Two arms of a run, or two runs. Raises NotFound where there is nothing to compare with."""
    query = question.query
    if query.arm and not query.other_run:
        return _two_arms(question, query.other_arm or ("base" if query.arm != "base" else "adapter"), query.arm)
    one, two = _pair(question)
    whole = _two_runs(question.store, one, two)
    if query.aspect == "duration":
        return replace(whole, lines=(*_times(question, (one, two)), *whole.lines[-1:]))
    if query.aspect == "changed":
        leading = [line.strip() for line in whole.lines if "they differ" in line] or ["Their settings are the same."]
        return replace(whole, lines=(f"{one.id} and {two.id}: {leading[0]}", *whole.lines[1:5]))
    return whole


def _pair(question: Question) -> tuple[Run, Run]:
    """The two runs that are meant. Raises NotFound where there is but one."""
    query = question.query
    if query.other_run:
        return find(question.store, query.run), find(question.store, query.other_run)
    if query.run and question.current and question.current.id != query.run:  # `compare it with r1`
        return question.current, find(question.store, query.run)
    one = question.run()
    others = [run for run in ordinary(question.store) if run.id != one.id]
    if not others:
        raise NotFound(f"There is no run beside {one.id} to compare with; its arms can be: “compare base and adapter”.")
    return others[0], one


def _times(question: Question, runs: Sequence[Run]) -> list[str]:
    """How long a stage took in each run, else the whole runs."""
    stage = question.query.stage
    took = {
        run.id: sum(s.seconds or 0 for s in question.store.steps(run.id, status=DONE) if stage in ("", s.stage))
        for run in runs
    }
    longer = max(took, key=lambda run: took[run])
    each = ", ".join(f"{run} {duration(seconds)}" for run, seconds in took.items())
    return [f"{longer} took longer: {each}{f' of {stage}' if stage else ' in all their finished steps'}."]


def _two_arms(question: Question, a: str, b: str) -> Answer:
    from tunesmith.agent.commands.render import comparison_table

    store, query = question.store, question.query
    run = evaluated_run(question)
    a, b = sorted((a, b), key=_CHAIN.index)
    a, unmeasured = _nearest_measured(store, run, a, b)
    try:
        compared = compare_run(store, run.id, a, b)
    except NotFound:
        arms = listed(list(dict.fromkeys(s.arm for s in scores.of_run(store, run.id)))) or "none"
        raise NotFound(f"{run.id} cannot compare {a} with {b}: measured arms are {arms}.") from None
    lines = [f"{run.id} ({clip(run.name, 40)}), {a} → {b}{unmeasured}:"]
    if not compared.comparable:
        lines.append(f"not comparable: {clip(compared.refused or ', '.join(compared.differs_in), 200)}")
    for block, counts in compared.blocks.items():
        if query.block in ("", block):
            n, passed = counts.judged, counts.passed
            lines.append(
                f"  {block}: {a} {passed[a]} of {n}, {b} {passed[b]} of {n}: {counts.verdict} "
                f"({counts.fail_to_pass} gained, {counts.pass_to_fail} lost{_p(counts.p_value)})"
            )
    lines += [_lost_cases(compared, query.block)] if any(c.pass_to_fail for c in compared.blocks.values()) else []
    lines += [] if query.block else [kept_of_the_gain(store, run.id, b)]
    return Answer(tuple(line for line in lines if line), lambda: comparison_table(compared))


def kept_of_the_gain(store: Store, run: str, arm: str) -> str:
    """What a merged or quantized model kept of what the adapter won, in passed cases and in likelihood; else empty."""
    if arm not in ("merged", "quantized"):
        return ""
    cases = next((one for one in gain_retained(store, run) if one.arm == arm), None)
    likely = next((one for one in likelihood_retained(store, run) if one.arm == arm), None)
    said = [f"{cases.kept} of the {cases.won} target cases that the adapter won"] if cases else []
    said += [likely.brief] if likely else []
    return f"{arm} keeps {listed(said)}." if said else ""


def _nearest_measured(store: Store, run: Run, a: str, b: str) -> tuple[str, str]:
    """The earlier arm, or where it was not measured the last one before it that was, and what to say of that."""
    measured = {s.arm for s in scores.of_run(store, run.id)}
    before = [arm for arm in _CHAIN[: _CHAIN.index(a)] if arm in measured and arm != "prompted"]
    if a in measured or b not in measured or not before:
        return a, ""
    return before[-1], f" (the {a} model was not measured)"


def _lost_cases(compared: Comparison, block: str) -> str:
    lost = [flip.case_id for flip in compared.flips_of("pass_to_fail") if block in ("", flip.block)]
    of_block = [counts for name, counts in compared.blocks.items() if block in ("", name)]
    gained = sum(counts.fail_to_pass for counts in of_block)
    if blind := sum(counts.pass_to_fail for counts in of_block) - len(lost):
        lost = [*lost[:6], counted(blind, "blind case")]
    return f"Lost: {listed([clip(one, 40) for one in lost], 7)}; {counted(gained, 'case')} gained." if lost else ""


def _two_runs(store: Store, one: Run, two: Run) -> Answer:
    if one.id == two.id:
        raise NotFound(f"{one.id} and {two.id} are the same run; name two.")
    lines = [f"{one.id} ({clip(one.name, 30)}) and {two.id} ({clip(two.name, 30)}):"]
    measured = {run.id: scores.of_run(store, run.id) for run in (one, two)}
    for block in BLOCKS:
        sides = []
        for run in (one, two):
            of_block = [s for s in measured[run.id] if s.block == block]
            sides.append(
                f"{run.id} " + (", ".join(f"{s.arm} {s.passed} of {s.judged}" for s in of_block) or "not measured")
            )
        if any(s.block == block for run in (one, two) for s in measured[run.id]):
            lines.append(f"  {block}: {'; '.join(sides)}")
    seconds = {run.id: sum(step.seconds or 0 for step in store.steps(run.id)) for run in (one, two)}
    lines.append("  took, with what failed, " + ", ".join(f"{run} {duration(took)}" for run, took in seconds.items()))
    differing = settings.differing(store, one, two)
    if differing:
        named = [f"{name} {a} / {b}" for name, (a, b) in differing.items()]
        lines.append(f"  they differ in {len(differing)} settings: {clip('; '.join(named), 300)}")
    rows = [[name, a, b] for name, (a, b) in differing.items()]
    return Answer(tuple(lines), lambda: render.rows_table(["setting", one.id, two.id], rows, exact=True))
