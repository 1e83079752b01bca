"""What runs left behind: curves of a training, files with their sizes and digests, what was made from what."""

from __future__ import annotations

import re

from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.driver.facts.answer import Answer, Question, cite, clip, day, find, ordinary
from tunesmith.memory.errors import NotFound
from tunesmith.memory.questions import what_made
from tunesmith.memory.records import DONE, Artifact, Run, Step
from tunesmith.tools.core.format import size

_SPARKS = "▁▂▃▄▅▆▇█"
KINDS = (
    "base",
    "teacher",
    "suite",
    "rows",
    "dataset",
    "preflight",
    "adapter",
    "results",
    "merged",
    "quantized",
    "deployment",
)


def answer(question: Question) -> Answer:
    """Artifacts of a run, of one kind where it was named. Raises NotFound where there is none."""
    query, store = question.query, question.store
    if re.fullmatch(r"a\d+", query.text):
        return Answer(tuple(_one(question, store.artifact(query.text))))
    if query.aspect in ("disk", "longest") and not query.arm:
        return _largest(question)
    kind = query.arm or query.text
    run = _run_with(question, kind)
    made = store.artifacts(run.id, kind or None)
    if not made:
        kinds = ", ".join(dict.fromkeys(a.kind for a in store.artifacts(run.id))) or "nothing yet"
        raise NotFound(f"{run.id} has no {kind}; it has made: {kinds}.")

    def page() -> RenderableType:
        return render.rows_table(
            ["artifact", "kind", "made by", "bytes", "sha256", "path"],
            [[a.id, a.kind, a.step, size(a.bytes), a.sha256[:12], str(a.path)] for a in made],
            exact=True,
        )

    if kind:
        return Answer(tuple(_one(question, made[-1])), page)
    large = sorted({a.kind: a for a in made}.values(), key=lambda a: a.bytes, reverse=True)
    lines = [
        f"{run.id} ({clip(run.name, 30)}) has made {len(made)} artifacts, {size(sum(a.bytes for a in made))} in all:"
    ]
    lines += [f"  {a.kind} {a.id} ({a.step}): {size(a.bytes)}, {a.path}" for a in large[:5]]
    return Answer(tuple(lines), page)


def _largest(question: Question) -> Answer:
    """What takes the disk: the sum of the files of a run, or of all, and the largest of them."""
    store, query = question.store, question.query
    runs = [find(store, query.run)] if query.run else store.runs()
    made = list({str(a.path): a for run in runs for a in store.artifacts(run.id)}.values())
    made = sorted((a for a in made if query.text in ("", a.kind)), key=lambda a: a.bytes, reverse=True)
    if not made:
        raise NotFound(f"No {query.text or 'file'} was made yet.")
    of = runs[0].id if query.run else f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    total = f"The {len(made)} artifacts of {of} take {size(sum(a.bytes for a in made))}, models included."
    first = made[0]
    largest = (
        f"The largest is {first.kind} {first.id} of {first.run} ({first.step}): {size(first.bytes)}, {first.path}."
    )
    rest = [f"  then {a.kind} {a.id} of {a.run}: {size(a.bytes)}" for a in made[1:4]]
    return Answer((largest, *rest, total) if query.aspect == "longest" else (total, largest, *rest))


def _run_with(question: Question, kind: str) -> Run:
    if question.query.run or question.query.step:
        return question.run()
    for run in [*([question.current] if question.current else []), *ordinary(question.store)]:
        if question.store.artifacts(run.id, kind or None):
            return run
    return question.run()


def _one(question: Question, made: Artifact) -> list[str]:
    store = question.store
    step = store.step(made.step)
    name = made.kind if made.kind not in ("base", "teacher", "merged", "quantized") else f"{made.kind} model"
    title = f"{clip(made.meta['name'], 60)}, " if made.kind in ("base", "teacher") and "name" in made.meta else ""
    first = f"The {name} of {made.run} ({made.id}) is {title}{size(made.bytes)}{_beside(question, made)}."
    where = f"It lies in {made.path}."
    lineage = what_made(store, made.id)["lineage"]
    line = " ← ".join(f"{up['kind']} {up['artifact']} ({up['stage']} {up['step']})" for up in lineage[:6])
    by = f"{step.stage} ({cite(step)}) made it {day(step.finished_at)}; sha256 {made.sha256[:12]}."
    lines = [first, where, by, f"Made from: {line}." if line else "", _contents(made)]
    digest = f"The sha256 of {name} {made.id} of {made.run} is {made.sha256}."
    order = {
        "key": [digest, where, by],
        "path": [where, first, by],
        "lineage": [lines[3], by, first],
        "when": [by, first, where],
    }
    lead = [one for one in order.get(question.query.aspect, []) if one]
    return [*lead, *(one for one in lines if one and one not in lead)]


def _contents(made: Artifact) -> str:
    telling = [
        (name, made.meta[name])
        for name in ("name", "parameters", "lora_rank", "scheme", "train_rows", "cases", "url")
        if name in made.meta
    ]
    return (
        "It holds: " + ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in telling) + "."
        if telling
        else ""
    )


def _plain(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else clip(value, 60)


def _beside(question: Question, made: Artifact) -> str:
    """Its size beside that of what it was made from, where that tells something."""
    against = {"quantized": "merged", "merged": "base", "adapter": "base"}.get(made.kind)
    other = question.store.ancestor(made, against) if against else None
    if other is None or not other.bytes:
        return ""
    return f", {made.bytes / other.bytes:.0%} of the {other.kind} model's {size(other.bytes)}"


def curve(question: Question) -> Answer:
    """The losses of a training: first, last, lowest, before and after. Raises NotFound."""
    run = find(question.store, question.query.run) if question.query.run else question.run(with_stage="train")
    steps = [
        step
        for step in question.store.steps(run.id)
        if step.stage == "train" and question.store.metrics(step.id, "loss")
    ]
    if not steps:
        raise NotFound(f"{run.id} has no training whose losses were kept.")
    done = [step for step in steps if step.status == DONE]
    if question.query.field not in ("", "train_loss", "speed"):
        return _metric(question, (done or steps)[-1], question.query.field)
    lines = curve_lines(question, (done or steps)[-1])
    leads = {"train_loss": "The training loss", "speed": "In "}.get(question.query.field, "The validation")
    return Answer(tuple(sorted(lines, key=lambda line: not line.startswith(leads))))


def _metric(question: Question, step: Step, name: str) -> Answer:
    """One curve of a training: from, to, lowest and highest."""
    points = question.store.metrics(step.id, name)
    words = name.replace("_", " ")
    if not points:
        raise NotFound(f"train ({cite(step)}) kept no {words}.")
    values = [value for _, value in points]
    first = (
        f"The {words} of train ({cite(step)}) went from {values[0]:.4g} to {values[-1]:.4g} over {len(values)} points"
    )
    between = f"lowest {min(values):.4g}, highest {max(values):.4g} at step {max(points, key=lambda p: p[1])[0]:.0f}"
    return Answer((f"{first}, {between}: {_spark(points)}",))


def curve_lines(question: Question, step: Step) -> list[str]:
    """What the losses of one training were."""
    losses, validation = question.store.metrics(step.id, "loss"), question.store.metrics(step.id, "validation_loss")
    result = step.report
    before = result.get("validation_loss_before", validation[0][1] if validation else None)
    after = result.get("validation_loss", validation[-1][1] if validation else None)
    lines = []
    if before is not None and after is not None:
        lowest = min([value for _, value in validation], default=after)
        lines.append(
            f"The validation loss of train ({cite(step)}) went from {before:.3f} to {after:.3f}, the "
            f"lowest was {min(lowest, after):.3f}."
        )
    if choice := result.get("choice"):
        lines.append(f"The adapter of train ({cite(step)}): {choice}.")
    first, last = losses[0][1], losses[-1][1]
    mean = f", {result['train_loss']:.3f} on average" if isinstance(result.get("train_loss"), float) else ""
    lines.append(
        f"The training loss of train ({cite(step)}) went from {first:.3f} to {last:.3f} over {len(losses)} points"
        f"{mean}: {_spark(losses)}"
    )
    if len(validation) > 1:
        lines.append(
            "Validation by optimiser step: " + ", ".join(f"{x:.0f}: {value:.3f}" for x, value in validation[-8:]) + "."
        )
    settings = [
        f"{name.replace('_', ' ')} {_plain(result[name])}" for name in ("steps", "trained_tokens") if name in result
    ]
    if isinstance(result.get("tokens_per_second"), float):
        settings.append(f"{result['tokens_per_second']:.0f} tokens a second")
    return [*lines, *([f"In {', '.join(settings)} ({cite(step)})."] if settings else [])]


def _spark(points: list[tuple[float, float]], width: int = 40) -> str:
    values = [value for _, value in points]
    step = max(len(values) / width, 1.0)
    chosen = [values[int(i * step)] for i in range(min(width, len(values)))]
    low, high = min(chosen), max(chosen)
    return "".join(_SPARKS[int((value - low) / (high - low or 1) * (len(_SPARKS) - 1))] for value in chosen)
