"""The price of a whole plan before its first step: every step planned on what the steps before it should leave.

What is not there yet is stood in for by an artifact of the expected size, so that each stage's own `plan` does the
arithmetic. A forecast is for looking at: nothing can be approved by it, and every step is priced again, on what is
really there, when its turn comes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import GIB, Estimate, Facts, Request
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.evaluation.evaluate import sampling_of
from tunesmith.tools.export.deploy import refuse_taken_port
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.machine.vllm_program import no_vllm
from tunesmith.tools.models.base import bundled_model, source_of
from tunesmith.tools.pipeline import catalog, planning_facts
from tunesmith.tools.pipeline.plan_file import ArcPlan, parse_request
from tunesmith.tools.pipeline.workspace import Workspace
from tunesmith.tools.serving.eviction import machine_for_a_step
from tunesmith.tools.suites.loading import load_named_suites

_KEPT_SHARE = 0.92
"""Of the candidate rows critique usually keeps so many."""
_TOKENS_PER_ROW = 95
_BITS = {"W4A16": 4, "W8A16": 8, "W8A8": 8}


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one step of a plan will probably cost; `estimate` is None where that shows only when it is due."""

    stage: str
    summary: str
    estimate: Estimate | None = None


def forecast(ws: Workspace, plan: ArcPlan, *, run: str = "") -> list[Forecast]:
    """Price every step of `plan` as if the ones before it were done. Never raises for what cannot be known yet."""
    machine = machine_for_a_step(ws.store.home)
    known = planning_facts.gather(ws.store, run, vllm=ws.vllm, vllm_from=ws.vllm_from, machine=machine)
    seen: dict[str, Any] = {
        "broken": [],
        "rollback": None,
        "model": None,
        "deployed": [],
        "alone": known.machine,
        "rehearsal": 10**6,
    }
    found = []
    for spec in plan.carried_out:
        request = parse_request(spec.stage, spec.fields)
        if spec.stage == "baseline":
            seen |= {**_suite_of(request), "sampling": sampling_of(request.model_dump())}
        found.append(_forecast(ws, spec.stage, request, replace(known, seen=seen)))
        stand_in = _stand_in(spec.stage, request, known)
        if stand_in is not None:
            known = replace(known, artifacts={**known.artifacts, stand_in.kind: stand_in})
    return found


def check_ahead(ws: Workspace, plan: ArcPlan) -> list[Forecast]:
    """The forecast of a plan, refused where a step is known to fail, before anything of it has started.

    Looked at: vLLM for the stages that serve, every file that a request names, a wished port, and the disk that all
    steps need together. Memory is left to each step's own turn: other programs come and go. Raises BadInput.
    """
    for number, spec in enumerate(plan.steps, 1):
        try:
            request = parse_request(spec.stage, spec.fields)
            if catalog.BY_NAME[spec.stage].serves and not ws.vllm:
                raise BadInput(no_vllm(ws.vllm_from))
            if spec.stage in _LOOKS_AHEAD:
                _LOOKS_AHEAD[spec.stage](request, ws.store)
        except BadInput as error:
            raise BadInput(f"step {number} ({spec.stage}): {error}") from None
    prices = forecast(ws, plan)
    needed = sum(step.estimate.disk_bytes for step in prices if step.estimate)
    free = measure_machine(ws.store.home).disk_free_bytes
    if needed > free:
        raise BadInput(
            f"the plan needs {needed / GIB:.1f} GiB of disk in all, {free / GIB:.1f} GiB free; "
            "make room, move TUNESMITH_HOME, or take a smaller base"
        )
    return prices


def _look_at_inputs(stage: str) -> Callable[[Any, Store], object]:
    """The stage's own look, for those that read nothing of a run."""

    def look(request: Any, store: Store) -> object:
        declared = catalog.BY_NAME[stage].load()
        return declared.look(request, store, "") if declared.look else None

    return look


_LOOKS_AHEAD: Mapping[str, Callable[[Any, Store], object]] = {
    **{stage: _look_at_inputs(stage) for stage in ("base", "baseline", "generate", "critique")},
    "evaluate": lambda request, store: load_behaviour(request.behaviour) if request.behaviour else None,
    "deploy": lambda request, store: refuse_taken_port(store.home, request.port),
}
"""What a step reads that is there before the plan begins."""


def _suite_of(request: Any) -> dict[str, Any]:
    """The suite for the steps after the baseline; none where it cannot be read, which `check_ahead` tells."""
    try:
        return {"suite": load_named_suites(request.suites, request.cases_per_block)}
    except TunesmithError:
        return {}


def _forecast(ws: Workspace, stage: str, request: Request, known: Facts) -> Forecast:
    declared = catalog.BY_NAME[stage].load()
    try:
        looked = declared.look(request, ws.store, known.run) if declared.look and stage != "deploy" else {}
        plan = declared.plan(request, replace(known, seen={**looked, **known.seen}))
    except (TunesmithError, KeyError, TypeError, ValueError):
        return Forecast(stage, catalog.BY_NAME[stage].summary)
    return Forecast(stage, plan.summary, plan.estimate)


def _stand_in(stage: str, request: Any, known: Facts) -> Artifact | None:
    maker = _MAKES.get(stage)
    kind = catalog.BY_NAME[stage].makes
    if stage == "base":
        kind = request.role
    try:
        made = maker(request, known.artifacts) if maker else (0, {})
    except (KeyError, OSError, ValueError):
        return None
    if made is None or not kind:
        return None
    bytes_, meta = made
    return Artifact("forecast", known.run, "", kind, Path(), "", bytes_, meta=meta)


_Made = tuple[int, dict[str, Any]] | None
_Artifacts = Mapping[str, Artifact]


def _base(request: Any, held: _Artifacts) -> _Made:
    source = source_of(request.model)
    if source == "bundled":
        model = bundled_model(request.model)
        return model.folder_bytes, {"name": model.title, "parameters": model.parameters, "config": dict(model.config)}
    if source == "folder":
        folder = Path(request.model).expanduser()
        bytes_ = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        config = json.loads((folder / "config.json").read_text())
        return bytes_, {"name": folder.name, "parameters": bytes_ // 2, "config": config}
    return None


def _rows(request: Any, held: _Artifacts) -> _Made:
    return 0, {"rows": request.rows + request.rehearsal_rows}


def _dataset(request: Any, held: _Artifacts) -> _Made:
    kept = int(held["rows"].meta["rows"] * _KEPT_SHARE)
    return 0, {"train_rows": int(kept * (1 - request.valid_share)), "tokens_per_row": _TOKENS_PER_ROW}


def _adapter(request: Any, held: _Artifacts) -> _Made:
    return 0, {"lora_rank": request.lora_rank or 16}


def _merged(request: Any, held: _Artifacts) -> _Made:
    return held["base"].bytes, dict(held["base"].meta)


def _quantized(request: Any, held: _Artifacts) -> _Made:
    return int(held["merged"].bytes * _BITS.get(request.scheme, 16) / 16 * 1.2), dict(held["merged"].meta)


def _suite(request: Any, held: _Artifacts) -> _Made:
    return 0, {"cases": 0}


_MAKES: Mapping[str, Callable[[Any, _Artifacts], _Made]] = {
    "base": _base,
    "baseline": _suite,
    "generate": _rows,
    "critique": _dataset,
    "train": _adapter,
    "merge": _merged,
    "quantize": _quantized,
}
