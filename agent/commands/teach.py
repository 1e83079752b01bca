"""`tunesmith teach FILE`: the whole way for a described behaviour, from its file to the served model, without a talk.

What the file leaves out is proposed in code and shown beside what was said; it may be changed in the folder that is
written. The plan is a written plan like any other, with its prices, its approvals and its record.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render, run_steps
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.price import forecast_table
from tunesmith.agent.commands.settings import Settings
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.local_paths import expanded, is_there
from tunesmith.tools.core.yaml_file import read_yaml
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.arithmetic import as_text
from tunesmith.tools.data.behaviour import SPEC_FILE, load_behaviour
from tunesmith.tools.data.description import OWN_BLIND
from tunesmith.tools.data.import_sources import KINDS
from tunesmith.tools.data.scaffold import REHEARSAL, SUITE, write_behaviour
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.evaluation.judge import has_judge
from tunesmith.tools.models.base import bundled_model
from tunesmith.tools.pipeline.base_choice import plan_here
from tunesmith.tools.pipeline.forecast import check_ahead
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.workspace import Workspace
from tunesmith.tools.suites.grading.code import is_parsed

_VALUES_SHOWN = 8
_CHARACTERS = 400
_PARTS = ("when", "what", "never", "attributes", "answer", "rules", "criteria", "near_misses")
_NAMES_OF = {"attributes": ("attributes", "fields", "labels"), "answer": ("answer",)}
"""Words of a user's file that say something of a part, where it is not the part's own name."""


def teach(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """Propose what is missing, write the behaviour's folder, and carry out its plan; with --plan-only, price it."""
    path = described_in(args.file)
    spec = load_behaviour(str(path))
    said = said_parts(path)
    ws = run_steps.workspace_of(args, settings, store, out)
    folder, plan = _planned(ws, spec, path, args, out)
    return carry_out(ws, folder, plan, document(spec, said, folder, plan), spec_view(spec, said), args, settings, out)


def described_in(name: str | None) -> Path:
    """The file that describes a behaviour. Raises BadInput where none is named, or one of rows."""
    if not name:
        raise BadInput(
            "teach needs a FILE that says when, what and examples, or rows of your own: --rows mine.jsonl; both may be "
            "given"
        )
    path = expanded(name)
    if not is_there(path):
        raise BadInput(
            f"there is no {name}; name the file that says what is to be learned, or the one that your rows lie in: "
            "teach --rows FILE"
        )
    if path.suffix.lower() in KINDS and path.suffix.lower() != ".json":
        raise BadInput(f"{name} is a file of rows by its name; `tunesmith teach --rows {name}` trains on them")
    return path


def carry_out(
    ws: Workspace, folder: Path, plan: PipelinePlan, shown: dict[str, object], behaviour: RenderableType,
    args: argparse.Namespace, settings: Settings, out: Output,
) -> int:  # fmt: skip
    """Show a behaviour and its plan, and carry it out; with --plan-only, price it."""
    store = ws.store
    view = Group(behaviour, render.plain(f"the behaviour is in {folder}; change any field of {SPEC_FILE} there"))
    if not args.plan_only:
        out.console.print(view)
        return run_steps.whole(plan, args, settings, store, out, beside=shown)
    prices = check_ahead(ws, plan)
    priced = [{"stage": p.stage, "estimated_seconds": p.estimate.seconds if p.estimate else None} for p in prices]
    total = sum(price.estimate.seconds for price in prices if price.estimate)
    out.document(
        {**shown, "prices": priced, "estimated_seconds": total},
        Group(view, forecast_table(plan.name, prices, plan.reasons)),
    )
    return 0


def _planned(ws: Workspace, spec: Spec, path: Path, args: argparse.Namespace, out: Output) -> tuple[Path, PipelinePlan]:
    """The behaviour's folder and its plan. Raises BadInput; what was written for a plan that is refused goes again."""
    parent = ws.store.home / "behaviours"
    before = {parent, *parent.glob("*")} if parent.exists() else set()
    judged = has_judge(parent.parent, {bundled_model("bundled-driver").title})  # the plan itself fetches the writer
    if not judged:
        out.say("no judge is there: what code cannot compare waits for your ratings of the answers (`tunesmith rate`)")
    folder = _folder(spec, path, parent, judged=judged)
    try:
        return folder, plan_here(
            ws, folder, args.pace, model=args.model, writer=args.writer, say=out.say, judged=judged
        )
    except BadInput:
        if folder.parent == parent and folder not in before:
            shutil.rmtree(folder if parent in before else parent)
        raise


def said_parts(path: Path) -> frozenset[str]:
    """The parts of a behaviour that its file says itself; the others are proposed."""
    document = read_yaml(path / SPEC_FILE if path.is_dir() else path, "behaviour", through_link=True)
    given = {name for name, value in document.items() if value} if isinstance(document, dict) else set()
    return frozenset(part for part in _PARTS if given & set(_NAMES_OF.get(part, (part,))))


def _folder(spec: Spec, path: Path, parent: Path, *, judged: bool) -> Path:
    """The behaviour's folder: the one that was named, or that holds this very spec; else a new one below `parent`.

    Raises BadInput for what no folder can be made of.
    """
    named = path if path.is_dir() else path.parent if path.name == SPEC_FILE else None
    if named is not None and (named / SUITE).is_file() and (named / REHEARSAL).is_file():
        return named
    for folder in sorted(parent.glob(f"{spec.name}*")):
        try:
            if load_behaviour(str(folder)).sha256 == spec.sha256 and (folder / SUITE).is_file():
                return folder
        except BadInput:
            continue  # another one, broken by hand
    return write_behaviour(spec, parent, judged=judged)


def document(spec: Spec, said: frozenset[str], folder: Path, plan: PipelinePlan) -> dict[str, object]:
    """The behaviour and its plan, as `--json` prints them."""
    return {
        "behaviour": spec.name,
        "folder": str(folder),
        "spec": spec.model_dump(mode="json", exclude_defaults=True),
        "proposed": [name for name in _PARTS if name not in said],
        "plan": plan.model_dump(mode="json"),
    }


def spec_view(spec: Spec, said: frozenset[str]) -> RenderableType:
    """The whole behaviour as one table: what was said, and what was proposed."""
    by = {name: "said" if name in said else "proposed" for name in _PARTS}
    rows: list[list[str]] = [[name, getattr(spec, name), by[name]] for name in ("when", "what", "never")]
    rows += [[f"attribute {name}", told, by["attributes"]] for name, told in _attributes(spec.attributes)]
    rows += [["tool", json.dumps(tool["function"], ensure_ascii=False), "said"] for tool in spec.tools]
    rows.append(["answer", _answer(spec), by["answer"]])
    rows += [["rule", rule.says, by["rules"]] for rule in spec.rules]
    rows += [["criterion", text, by["criteria"]] for text in spec.criteria]
    told = (
        f"{len(spec.near_misses)} of yours; the writer adds more" if spec.near_misses else "the writer thinks them up"
    )
    rows.append(["near misses", told, by["near_misses"]])
    rows += [["example", f"{e.prompt} => {e.answer}", "said"] for e in spec.examples]
    if spec.blind_sha256:
        rows.append(["blind cases", f"{OWN_BLIND} more of your examples, which only the test suite sees", "said"])
    cells = [[name, _short(text), whose] for name, text, whose in rows]
    return render.rows_table(["part", spec.name, "by"], cells, exact=True)


def _short(text: str) -> str:
    flat = text.replace("\n", "\\n")
    return flat if len(flat) <= _CHARACTERS else f"{flat[:_CHARACTERS]}…"


def _attributes(attributes: Sequence[Attribute], at: str = "") -> Iterator[tuple[str, str]]:
    """Every attribute by its path, and what is to be said of it."""
    for one in attributes:
        yield f"{at}{one.name}", _attribute(one)
        yield from _attributes(one.attributes, f"{at}{one.name}.")


def _attribute(attribute: Attribute) -> str:
    names = [f"{n} ({v.means})" if v.means else n for n, v in attribute.values.items()]
    told: list[str] = [attribute.kind]
    if attribute.many:
        least, most = attribute.many
        told = [f"{'set' if attribute.kind == 'label' else 'list'} of {least} to {most}: {attribute.kind}"]
    if attribute.formula is not None:
        told.append(as_text(attribute.formula))
    if names:
        told.append(", ".join(names[:_VALUES_SHOWN]) + (" …" if len(names) > _VALUES_SHOWN else ""))
    elif attribute.means:
        told.append(attribute.means)
    if attribute.absent_share:
        shown = "null" if attribute.absent_as is None else repr(attribute.absent_as)
        shown = "left out" if attribute.left_out else shown
        told.append(f"absent in {attribute.absent_share:.0%}, then {shown}")
    for name, values in attribute.absent_where.items():
        told.append(f"absent where {name} is {' or '.join(values)}")
    return "; ".join(told) + ("" if attribute.shown else "; only makes messages differ")


def _answer(spec: Spec) -> str:
    form = form_of(spec)
    if not form.composed:
        language = spec.answer.language
        unread = f"; {language} is not parsed here" if language and not is_parsed(language) else ""
        return f"written by the writer, held to the rules{unread}"
    told = f"composed by code as {form}"
    told += f": {spec.answer.template}" if spec.answer.template else ""
    return told + (f"; else {spec.answer.otherwise!r}" if spec.answer.otherwise else "")
