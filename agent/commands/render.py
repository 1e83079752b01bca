"""Records turned into what a terminal shows. Pure: nothing here reads the store, the clock or the environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, TypeAdapter, ValidationError
from rich.console import Group, RenderableType
from rich.text import Text

from tunesmith.agent.commands import theme
from tunesmith.agent.commands.layout import Cell, Labelled, Prose, Rows, prose
from tunesmith.memory.records import DONE, Step
from tunesmith.tools.core.auto import readable_default
from tunesmith.tools.core.format import duration, p_value, size, visible
from tunesmith.tools.pipeline.inspect import MemoryNeed

if TYPE_CHECKING:
    from tunesmith.memory.questions import RunShape
    from tunesmith.memory.store import Store
    from tunesmith.tools.evaluation.comparison import BlockScore, Comparison
    from tunesmith.tools.evaluation.evidence import Evidence


_FAR_OFF, _NOTICED_S = 1.5, 5.0
"""From this factor on a price was wrong; a few seconds are nobody's concern."""


def eta_seconds(elapsed_s: float, total: float, estimated_s: float) -> float:
    """Seconds to the end: by all the time that the step's worker takes it to need, by its price before it says so."""
    return max((total or estimated_s) - elapsed_s, 0.0)


def progress_words(elapsed_s: float, done: float, total: float, note: str, estimated_s: float) -> str:
    """How far a step is: `45% · optimiser step 20 of 50 · about 1 min 10 s left`."""
    left_s = eta_seconds(elapsed_s, total, estimated_s)
    share = f"{min(done / total, 1):.0%}" if total else ""
    left = f"about {duration(round(left_s))} left" if left_s >= 1 else f"{duration(round(elapsed_s))} so far"
    return " · ".join(part for part in (share, note, left) if part)


def took_line(seconds: float | None, estimated_s: float) -> str:
    """What a step took against its price; where that was far off, by how much, and that the next ones learn from it."""
    line = f"took {duration(seconds)}, estimated {duration(estimated_s)}"
    if not seconds or not estimated_s or abs(seconds - estimated_s) < _NOTICED_S:
        return line
    off = max(seconds / estimated_s, estimated_s / seconds)
    if off <= _FAR_OFF:
        return line
    return f"{line}: off by a factor of {off:.1f}, which the next prices take into account"


def plain(value: object) -> Text:
    """Text as data: no markup in its brackets, no escape sequence that reaches the terminal."""
    return Text(visible(value))


def step_end(step: Step) -> Prose:
    """A step that ended in one line, what it took against its estimate; below it, what it advises."""
    took = took_line(step.seconds, step.estimated_seconds)
    peak = f", peak {size(step.peak_rss_bytes)}" if step.peak_rss_bytes else ""
    mark = Text("✓ " if step.status == DONE else "✗ ", style=theme.verdict_style(step.status))
    end = f"{step.stage} ({step.id}): {took}{peak}" if step.status == DONE else _bad_end(step)
    advice = step.report.get("advice")
    return Prose(mark + theme.coloured(visible(f"{end}\n  {advice}" if advice else end)))


def _bad_end(step: Step) -> str:
    return (
        f"{step.stage} ({step.id}) {step.status} after {duration(step.seconds)}: {step.error or 'no reason recorded'}"
    )


def result_table(report: Mapping[str, object]) -> RenderableType:
    """What a step or a look reports, one field a row; records within records are for programs, and only named."""
    entries: list[tuple[str, Text]] = []
    tables: list[RenderableType] = []
    for_programs = []
    for name, value in report.items():
        rendered = _reported(name, value)
        if rendered is None:
            for_programs.append(_heading(name))
        elif isinstance(rendered, Text):
            entries.append((_heading(name), rendered))
        else:
            tables += [Text(_heading(name), style=theme.LABEL), rendered]
    if for_programs:
        entries.append(("with --json", plain(", ".join(for_programs))))
    return Group(Labelled(entries, indent=0, fold=False), *tables)


def _reported(name: str, value: object) -> RenderableType | None:
    """One field of a result; records that have a sentence or a table of their own are shown by it.

    None for a record that holds records or lists and has neither.
    """
    from tunesmith.tools.evaluation.comparison import Comparison
    from tunesmith.tools.export.audit import Audit

    try:
        if name == "fits":
            return _fits_table(TypeAdapter(list[MemoryNeed]).validate_python(value))
        if name == "audit" and value:
            return plain(Audit.model_validate(value).summary)
        if name == "comparisons" and isinstance(value, list) and value:
            return _hops_table([Comparison.from_json(one) for one in value])
    except (ValidationError, LookupError):  # another version's
        pass
    if isinstance(value, Mapping) and any(isinstance(inner, Mapping | list) for inner in value.values()):
        return None
    return _value(name, value)


def _hops_table(hops: Sequence[Comparison]) -> RenderableType:
    """Blocks of each comparison: what either arm passed, what was lost, and the verdict."""
    rows = [
        [
            " → ".join(hop.arms),
            name,
            *(f"{block.passed[arm]} of {block.judged}" for arm in hop.arms),
            block.pass_to_fail,
            p_value(block.p_value),
            hop.refused or block.verdict,
        ]
        for hop in hops
        for name, block in hop.blocks.items()
    ]
    return rows_table(["arms", "block", "before", "after", "lost", "p", "verdict"], rows)


def _fits_table(fits: Sequence[MemoryNeed]) -> RenderableType:
    """Kinds of work down, sizes of model across: what each needs, green where it is free."""
    sizes = sorted({task.parameters for task in fits})
    needs = {(task.work, task.parameters): task for task in fits}
    rows = []
    for work in dict.fromkeys(task.work for task in fits):
        cells = [needs[work, parameters] for parameters in sizes]
        rows.append(
            [work, *(Text(size(one.needs_bytes), style=theme.GOOD if one.fits else theme.BAD) for one in cells)]
        )
    return rows_table(["needs, for", *(f"{parameters / 1e9:g}B" for parameters in sizes)], rows, exact=True)


def _heading(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ").replace("rss", "RSS").replace("vram", "VRAM")


def _value(name: str, value: object) -> RenderableType:
    if name.endswith("bytes") and isinstance(value, int):
        return plain(size(value))
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return rows_table(list(value[0]), [list(item.values()) for item in value])
    if isinstance(value, Mapping):
        return plain(", ".join(f"{key}: {inner}" for key, inner in value.items()) or "–")
    return plain("–" if value in (None, [], "") else value)


def rows_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, exact: bool = False, optional: Sequence[str] = ()
) -> RenderableType:
    """A plain table of whatever was asked for; `exact` keeps names and numbers as they are.

    Where it is narrow the columns in `optional` are left out, the first of them first.
    """
    cells: list[list[Cell]] = [
        [
            _styled_cell(column, value if exact else _cell(column, value))
            for column, value in zip(columns, row, strict=True)
        ]
        for row in rows
    ]
    places = range(len(columns)) if rows else ()
    numeric = (index for index in places if all(isinstance(row[index], int | float | None) for row in rows))
    names = columns if exact else [_heading(column) for column in columns]
    dropped = [name for column in optional for name in [column if exact else _heading(column)] if column in columns]
    return Rows(names, cells, dropped, frozenset(numeric))


_VERDICT_COLUMNS = ("status", "verdict", "state", "fits")


def _styled_cell(column: str, value: object) -> Cell:
    if isinstance(value, Text):
        return value
    style = theme.verdict_style(value) if column in _VERDICT_COLUMNS else ""
    return Text(visible(value), style=style)


def _cell(column: str, value: object) -> str:
    if value is None:
        return "–"
    if column.endswith("bytes") and isinstance(value, int):
        return size(value)
    if column in ("seconds", "estimated_seconds", "eta_seconds") and isinstance(value, int | float):
        return duration(value)
    return str(value)


def fields_table(name: str, summary: str, model: type[BaseModel]) -> RenderableType:
    """The fields of a stage's request, with defaults and what they mean."""
    rows = [
        [field, "" if info.is_required() else str(readable_default(info)), info.description or ""]
        for field, info in model.model_fields.items()
    ]
    return Group(prose(f"{name}: {summary}"), rows_table(["field", "default", "what it is"], rows, exact=True))


def runs_table(store: Store, date: Callable[[float], str]) -> RenderableType:
    """All runs, the newest first; `date` turns a time into text."""
    rows = [
        [
            run.id,
            run.name,
            store.status_words(run),
            store.step_counts(run.id),
            date(run.created_at),
            sum(step.seconds or 0 for step in store.steps(run.id)),
        ]
        for run in store.runs()
    ]
    columns = ["run", "name", "status", "steps done", "begun", "seconds"]
    return rows_table(columns, rows, optional=("seconds", "begun"))


def run_table(run: RunShape) -> RenderableType:
    """A run as `runs show` tells it."""
    refused = f"; the gate refused: {run['refused']}" if run["refused"] else ""
    head = theme.coloured(visible(f"{run['run']} {run['name']}: ")) + theme.verdict(run["status"]) + plain(refused)
    where = ["on"] if any(step["on"] for step in run["steps"]) else []
    columns = ["step", "stage", "arm", *where, "status", "seconds", "estimated_seconds", "peak_rss_bytes", "approval"]
    steps = [[dict(step)[column] for column in columns] for step in run["steps"]]
    artifacts = [
        [artifact["artifact"], artifact["kind"], step["step"], artifact["bytes"], artifact["path"]]
        for step in run["steps"]
        for artifact in step["artifacts"]
    ]
    errors = [prose(f"{step['step']}: {step['error']}") for step in run["steps"] if step.get("error")]
    tables = [rows_table(columns, steps, optional=("approval", "peak_rss_bytes", "estimated_seconds", "arm")), *errors]
    if artifacts:
        tables.append(rows_table(["artifact", "kind", "made by", "bytes", "path"], artifacts))
    return Group(Prose(head), *tables)


def comparison_table(compared: Comparison) -> RenderableType:
    """Two arms held against each other, block by block."""
    a, b = compared.arms
    columns = ["block", "cases", a, b, "fail → pass", "pass → fail", "p", "verdict"]
    rows = [
        [
            name,
            block.cases,
            passed_text(block.score(a)),
            passed_text(block.score(b)),
            block.fail_to_pass,
            block.pass_to_fail,
            p_value(block.p_value).removeprefix("p ").removeprefix("= "),  # the column is headed p
            block.verdict,
        ]
        for name, block in compared.blocks.items()
    ]
    head = plain(f"{compared.run}: {a} → {b}")
    if not compared.comparable:
        head += Text(f"  not comparable: they differ in {', '.join(compared.differs_in)}", style="red")
    if compared.comparable and compared.precision_changes:
        head += Text(f"  the precision changes too: {compared.precision_changes}", style="yellow")
    left_out = [prose(line) for line in left_out_lines(compared.left_out)]
    dropped = ("p", "cases", "fail → pass", "pass → fail")
    return Group(Prose(head, hang=2), rows_table(columns, rows, optional=dropped), *left_out)


def controls_table(evidence: Evidence) -> RenderableType:
    """What an arm's answers are held against, and the verdict that is left."""
    verdict, controls = evidence.verdict, evidence.controls
    rows: list[list[object]] = []
    for name, part in (("people's cases", verdict.people), ("rows of the writer", verdict.writers)):
        if part and part.cases:
            rows.append([name, part.arm, part.cases, f"the base {part.base}, exact {p_value(part.p_value)}, mid-p "
                         f"{part.mid_p_value:.2g}"])  # fmt: skip
    for control in controls.all:
        note = f"the arm {control.own}, {p_value(control.p_value)}: {control.state}"
        rows.append([control.name, control.passed, control.cases, note])
    rows.append(["prompted base", *(evidence.prompted or ("–", "–")), "" if evidence.prompted else "not run"])
    tables: list[RenderableType] = [rows_table(["control", "passed", "of", ""], rows)]
    if evidence.repeat:
        tables.append(plain(f"the base asked twice: {evidence.repeat.flips} of {evidence.repeat.cases} verdicts flip"))
    if triggers := evidence.triggers:
        tables.append(plain(f"ordinary messages in the target's form: {len(triggers.triggered)} of {triggers.cases}"))
    if verdict.opening > 1:
        tables.append(
            plain(f"opening number {verdict.opening} of the blind cases: the bound is at {verdict.confidence:.3g}")
        )
    return Group(*tables, prose(f"claim for {evidence.arm}: {verdict.sentence}"))


def left_out_lines(left_out: Mapping[str, int]) -> list[str]:
    """How many cases of which block a comparison goes without, a line each."""
    return [
        f"left out: {n} {block} case{' was' if n == 1 else 's were'} not asked of both alike"
        for block, n in left_out.items()
    ]


def passed_text(score: BlockScore) -> str:
    """What an arm passed of a block, such as `19 of 19 (100%), 5 errors`.

    Errors are no failures: they are outside the number that it passed some of, and told beside it.
    """
    text = f"{score.passed} of {score.judged}" if score.judged < score.cases else f"{score.passed}"
    share = "" if score.rate is None else f" ({score.rate:.0%})"
    return text + share + (f", {score.errors} error{'s' if score.errors > 1 else ''}" if score.errors else "")


def rates_table(blocks: Mapping[str, Mapping[str, BlockScore]]) -> RenderableType:
    """Blocks down, arms across: how many cases each arm passed."""
    arms = list(dict.fromkeys(arm for scores in blocks.values() for arm in scores))
    rows = []
    for block, scores in blocks.items():
        cases = next(iter(scores.values())).cases
        cells = [passed_text(scores[arm]) if arm in scores else "–" for arm in arms]
        rows.append([block, cases, *cells])
    return rows_table(["block", "cases", *arms], rows)


def hop_line(compared: Comparison) -> Prose:
    """One comparison in a line: what was gained and lost in each block, and the verdict."""
    a, b = compared.arms
    block_verdicts = [
        f"{name} {block.verdict} (+{block.fail_to_pass} −{block.pass_to_fail}, {p_value(block.p_value)})"
        for name, block in compared.blocks.items()
    ]
    verdicts = "; ".join(block_verdicts) if compared.comparable else f"not comparable: {', '.join(compared.differs_in)}"
    also = f"; the precision changes too: {compared.precision_changes}" if compared.precision_changes else ""
    return prose(f"{a} → {b}: {verdicts}{also}", hang=2)
