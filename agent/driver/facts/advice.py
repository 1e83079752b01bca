"""Findings as answers: what a run came to, what to try next, whether it overfits, which model to deploy."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.agent.commands.explain import estimated_seconds
from tunesmith.agent.driver.facts import scores
from tunesmith.agent.driver.facts.answer import Answer, Proposed, Question, clip, counted, listed
from tunesmith.agent.driver.facts.artifacts import curve_lines
from tunesmith.agent.driver.facts.results import evaluated_run
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE, Run
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.evaluation.findings import Finding, Proposal, findings
from tunesmith.tools.evaluation.gate import broken_hops


def answer(question: Question) -> Answer:
    """The findings of a run, as far as they were asked for. Raises NotFound without a run."""
    query = question.query
    topics = {
        "loss": _overfit,
        "best": _which_to_deploy,
        "why": _why,
        "list": _next,
        "who": _prompt_alone,
        "duration": _longer,
        "count": _more_data,
        "size": _bigger_base,
    }
    try:
        run = question.run() if query.run else evaluated_run(question)
    except NotFound:
        run = question.run()
    told = topics.get(query.aspect, _all)(question, run)
    shown = "\n".join(told.lines)
    proposed = [one.next for one in findings(question.store, run.id) if one.next and _words(one.next) in shown]
    proposed.sort(key=lambda one: shown.index(_words(one)))
    return replace(told, proposals=tuple(Proposed(run.id, one.stage, one.fields) for one in proposed))


def _all(question: Question, run: Run) -> Answer:
    ranked = findings(question.store, run.id)
    lines = [clip(one.says, 300) for one in ranked]
    if not lines:
        lines = [f"The records of {run.id} say nothing yet: no arm was measured."]
    lines[0] = f"{run.id} ({clip(run.name, 30)}): {lines[0]}"
    proposal = next(
        (line for one in _by_weight(ranked) if one.next and (line := _proposed(question, run, one.next))), ""
    )
    return Answer((*lines[:5], *([proposal] if proposal else [])))


_VERDICTS = ("learned", "partly learned", "form only", "not learned", "no decision")
_WEIGHT = (
    "not measured",
    "not trained",
    "not learned",
    "form only",
    "base too weak",
    "over-triggers",
    "forgot",
    "partly learned",
    "no decision",
    "over-trained",
    "lost in quantization",
    "rows mislabelled",
    "rows narrow",
    "suite too small",
)


def _by_weight(unordered: list[Finding]) -> list[Finding]:
    """Those with something to do, the weightiest first."""
    return sorted((one for one in unordered if one.kind in _WEIGHT), key=lambda one: _WEIGHT.index(one.kind))


def _words(proposal: Proposal) -> str:
    """A proposed step as it may be said."""
    fields = " ".join(f"{name}={_plain(value)}" for name, value in proposal.fields.items())
    return f"To try next: {proposal.stage}{' ' if fields else ''}{fields} ("


def _proposed(question: Question, run: Run, proposal: Proposal) -> str:
    seconds = estimated_seconds(question.ws, run.id, proposal)
    cost = f", about {duration(seconds)}" if seconds is not None else ""
    return f"{_words(proposal)}{proposal.why}{cost}); say it, or “do that”, and it is priced before anything starts."


def _plain(value: object) -> str:
    return (
        ",".join(map(str, value))
        if isinstance(value, list | tuple)
        else f"{value:.4g}"
        if isinstance(value, float)
        else str(value)
    )


def _next(question: Question, run: Run) -> Answer:
    """What to try next, and why."""
    ranked = findings(question.store, run.id)
    weighty = _by_weight(ranked)
    if not weighty:
        good = next((one for one in ranked if one.kind == "learned"), None)
        says = good.says if good else "The records show nothing that needs mending."
        return Answer((f"{run.id}: {says}", *_rest(ranked, good), _deploy_line(question, run)))
    lines = [f"{run.id}: {clip(weighty[0].says, 300)}"]
    lines += [_proposed(question, run, one.next) for one in weighty[:2] if one.next]
    lines += [f"Cases: {listed([clip(case, 40) for case in weighty[0].cases], 6)}."] if weighty[0].cases else []
    others = [one for one in ranked if one is not weighty[0]]
    return Answer((*lines, *(clip(one.says, 200) for one in others[:2])))


def _rest(ranked: list[Finding], but: Finding | None) -> list[str]:
    return [clip(one.says, 220) for one in ranked if one is not but][:3]


def _overfit(question: Question, run: Run) -> Answer:
    """Whether it overfits, by the validation loss."""
    trained = [step for step in question.store.steps(run.id, status=DONE) if step.stage == "train"]
    if not trained:
        raise NotFound(f"{run.id} has no finished training, so nothing can be said about overfitting.")
    lines = [one.says for one in findings(question.store, run.id) if one.kind in ("over-trained", "not over-trained")]
    first = lines[0] if lines else "Too few validation losses were kept to say whether it overfits."
    return Answer((f"{run.id}: {first}", *curve_lines(question, trained[-1])[:2], *_general(question, run)))


def _longer(question: Question, run: Run) -> Answer:
    """Whether training on would help, by the validation losses and what passes."""
    found = findings(question.store, run.id)
    under = next((one for one in found if one.kind == "partly learned"), None)
    over = next((one for one in found if one.kind == "over-trained"), None)
    if under and under.next and under.next.stage != "train":
        lines = [f"Rather not: {under.says}", _proposed(question, run, under.next)]
    elif under:
        lines = [f"Yes: {under.says}", *([_proposed(question, run, under.next)] if under.next else [])]
    elif over:
        lines = [f"No: {over.says}", *([_proposed(question, run, over.next)] if over.next else [])]
    else:
        lines = ["The records show no need for it.", *_says_of(found, (*_VERDICTS, "not over-trained"))]
    return Answer((f"{run.id}: {lines[0]}", *lines[1:5]))


def _more_data(question: Question, run: Run) -> Answer:
    """Whether more or other rows would help, by the findings that speak of rows."""
    found = findings(question.store, run.id)
    about = [one for one in found if one.kind in ("form only", "rows narrow", "rows mislabelled")]
    about += [one for one in found if one.next and one.next.stage == "generate" and one not in about]
    if about:
        lines = [f"Yes: {about[0].says}", *([_proposed(question, run, about[0].next)] if about[0].next else [])]
    else:
        lines = ["No record asks for more rows.", *_says_of(found, _VERDICTS)]
    kept = sum(row.kept for step in question.store.steps(run.id, status=DONE) if step.stage == "generate"
               for row in question.store.rows(step.id))  # fmt: skip
    return Answer((f"{run.id}: {lines[0]}", *lines[1:4], f"{counted(kept, 'row')} of it were kept."))


def _bigger_base(question: Question, run: Run) -> Answer:
    """Whether another base would help: by the finding that this one is too weak, else by what it came to."""
    found = findings(question.store, run.id)
    weak = next((one for one in found if one.kind == "base too weak"), None)
    lines = [f"Yes: {weak.says}" if weak else "No record says that the base is too weak."]
    lines += [_proposed(question, run, weak.next)] if weak and weak.next else []
    lines += _says_of(found, _VERDICTS)
    fits_ = "“would Qwen2.5-0.5B train here?” says what this machine can hold."
    return Answer((f"{run.id}: {lines[0]}", *lines[1:4], fits_))


def _prompt_alone(question: Question, run: Run) -> Answer:
    """Whether the best prompt does as well as the fine-tune: by the prompted arm, where it was measured."""
    held = [one for one in scores.of_run(question.store, run.id) if one.block == "target"]
    prompted = next((one for one in held if one.arm == "prompted"), None)
    others = "; ".join(f"{one.arm} {one.told}" for one in held if one.arm != "prompted")
    if prompted is None:
        return Answer(
            (
                f"{run.id}: unknown, the prompted arm was never measured; “evaluate the prompted base” does it, "
                f"priced first.",
                f"Of the target cases pass: {others}." if others else "No arm was measured yet.",
            )
        )
    would = next((one.says for one in findings(question.store, run.id) if one.kind == "the prompt would do"), "")
    return Answer(
        (f"{run.id}: {would or 'No: the prompt alone does not do as well.'} prompted {prompted.told}; {others}.",)
    )


def _says_of(found: list[Finding], kinds: tuple[str, ...]) -> list[str]:
    return [clip(one.says, 220) for one in found if one.kind in kinds]


def _general(question: Question, run: Run) -> list[str]:
    measured = [s for s in scores.of_run(question.store, run.id) if s.block == "general"]
    return ["General block: " + "; ".join(f"{s.arm} {s.told}" for s in measured) + "."] if measured else []


def _why(question: Question, run: Run) -> Answer:
    """Why a block fell, or nothing was learned: the finding about it, with its cases."""
    query = question.query
    ranked = findings(question.store, run.id)
    about = [one for one in ranked if query.block and one.evidence.get("block") == query.block]
    kinds = ("lost in quantization", "kept in quantization") if query.arm == "quantized" else ()
    about += [one for one in ranked if one.kind in kinds]
    if query.block and not about:
        own = [s for s in scores.of_run(question.store, run.id) if s.block == query.block]
        rates = "; ".join(f"{s.arm} {s.told}" for s in own) or "not measured"
        about_target = [one.says for one in ranked if query.block == "target" and one.kind in _VERDICTS]
        first = f"No {query.block} case that the base passes was lost in {run.id}: {rates}."
        return Answer(
            (
                f"{run.id}: {about_target[0]}" if about_target else first,
                *([f"{query.block}: {rates}."] if about_target else []),
            )
        )
    chosen = about or _by_weight(ranked) or ranked
    lines = [f"{run.id}: {clip(chosen[0].says, 300)}"] if chosen else [f"{run.id}: the records hold no reason."]
    if chosen and chosen[0].cases:
        lines.append(f"The cases: {listed([clip(case, 40) for case in chosen[0].cases], 6)}.")
    lines += [_proposed(question, run, chosen[0].next)] if chosen and chosen[0].next else []
    lines += [clip(one.says, 200) for one in chosen[1:3]]
    return Answer(tuple(lines))


def _which_to_deploy(question: Question, run: Run) -> Answer:
    """The evaluated arms beside each other, what the gate says of each, and which one to take."""
    measured = scores.of_run(question.store, run.id)
    arms = [arm for arm in ("adapter", "merged", "quantized") if any(s.arm == arm for s in measured)]
    if not arms:
        raise NotFound(f"{run.id} has no evaluated model that could be deployed; “evaluate” measures one.")
    open_arms = [arm for arm in arms if not broken_hops(question.store, run.id, arm)]
    sizes = {a.kind: a.bytes for a in question.store.artifacts(run.id) if a.kind in arms}
    lines = [_recommended(run, arms, open_arms)]
    if (asked := question.query.arm) in arms:  # one that was asked about is spoken of first
        allowed = "may be deployed" if asked in open_arms else "is refused by the gate"
        lines = [f"The {asked} model of {run.id} {allowed}. {lines[0]}"]
    for arm in arms:
        passed = "; ".join(f"{s.block} {s.passed} of {s.judged}" for s in measured if s.arm == arm)
        gate = "may be deployed" if arm in open_arms else "the gate refuses it"
        weighs = f", {size(sizes[arm])}" if arm in sizes else ""
        lines.append(f"  {arm}{weighs}: {passed}; {gate}")
    if past := question.store.artifacts(run.id, "deployment"):
        lines.insert(0, f"{run.id}'s {past[-1].meta.get('arm', 'own')} model was deployed ({past[-1].step}).")
    refused = [arm for arm in arms if arm not in open_arms]
    if refused:
        lines.append(f"Why {refused[-1]} is refused: {clip(broken_hops(question.store, run.id, refused[-1])[0], 240)}")
    return Answer(tuple(lines[:6]))


def _recommended(run: Run, arms: list[str], open_arms: list[str]) -> str:
    if not open_arms:
        return f"None of {run.id}'s models passes the gate, neither {' nor '.join(arms)}; none should be deployed."
    best = "quantized" if "quantized" in open_arms else open_arms[-1]
    why = {
        "quantized": "it is the smallest and nothing broke on the way to it",
        "adapter": "it is what was measured on the base's own server",
    }
    return f"Of {run.id} rather the {best} model: {why.get(best, 'it is the last that passes the gate')}."


def _deploy_line(question: Question, run: Run) -> str:
    arms = {s.arm for s in scores.of_run(question.store, run.id)}
    for arm in ("quantized", "merged", "adapter"):
        if arm in arms and not broken_hops(question.store, run.id, arm):
            return f"Nothing stands in the way of deploying its {arm} model: “deploy the {arm} model of {run.id}”."
    return "The gate would refuse a deployment of every model that was measured."
