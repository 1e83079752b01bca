"""The flat question of the pattern readers as a typed request. It goes with them, and `query.py` with it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tunesmith.agent.driver.understanding.orders import factors_named
from tunesmith.agent.driver.understanding.query import Query
from tunesmith.agent.driver.understanding.times import window
from tunesmith.agent.driver.understanding.values import numbers_in, values_named
from tunesmith.agent.queries.registry import ANY_REQUEST, REQUESTS, Request
from tunesmith.memory.errors import NotFound

_ABOUT: Mapping[str, Mapping[str, str]] = {
    "run": {"list": "steps", "remaining": "remaining", "when": "dates", "status": "status", "why": "status"},
    "step": {"duration": "time", "estimate": "estimate", "peak": "memory", "ram": "memory", "when": "dates",
             "why": "failure", "log": "log", "longest": "longest", "speed": "time"},
    "curve": {"": "validation_loss", "speed": "tokens_per_second"},
    "artifact": {"path": "path", "key": "digest", "size": "size", "lineage": "lineage", "when": "date"},
    "findings": {"loss": "overfitting", "best": "deploy", "why": "why", "list": "next", "who": "prompt_alone",
                 "duration": "train_longer", "count": "more_rows", "size": "bigger_base"},
    "trial": {"path": "where", "changed": "before_and_after"},
    "fits": {"best": "largest", "disk": "disk", "gpu": "vram", "duration": "time"},
    "rows": {"why": "reasons", "list": "examples"},
    "compare": {"duration": "time", "changed": "settings"},
    "across": {"loss": "loss", "peak": "memory", "duration": "time", "count": "rows", "size": "size"},
    "machine": {"gpu": "gpu", "ram": "ram", "disk": "disk", "cpu": "cpu", "peak": "ram", "size": "disk"},
}  # fmt: skip
_SPREAD = ("average", "mean", "median")
_ROW_VERDICTS = {"keep": "keep", "drop": "drop"}


def typed(query: Query) -> Request:
    """The request that a flat question means. Raises NotFound for a span of time that nobody knows."""
    given = _SPECIAL.get(query.kind, _plain)(query)
    allowed = REQUESTS[str(given["kind"])].model_fields
    return ANY_REQUEST.validate_python({
        name: value for name, value in given.items() if name in allowed and value not in (None, "")
    })  # fmt: skip


def _plain(query: Query) -> dict[str, Any]:
    given = query.model_dump()
    about = _ABOUT.get(query.kind, {}).get(query.aspect, "")
    return {**given, "about": about, **_span(query.when)}


def _span(when: str) -> dict[str, datetime]:
    if not when:
        return {}
    if (span := window(when)) is None:
        raise NotFound(f"{when[:40]} is no span of time that I know; say a day, such as yesterday or 2026-11-20.")
    return {"since": datetime.fromtimestamp(span[0]), "until": datetime.fromtimestamp(span[1])}


def _fits(query: Query) -> dict[str, Any]:
    if query.text and not query.card_gib:
        raise NotFound(f"The memory of a {query.text[:40]} is not known here; say it, such as “a 16 GB card”.")
    size = f"{query.card_gib:g}" if query.card_gib else ""
    of_ram = query.aspect == "ram"
    return {**_plain(query), "card": "" if of_ram else size, "ram_gib": query.card_gib if of_ram else 0.0}


def _runs(query: Query) -> dict[str, Any]:
    about = "failed" if query.outcome == "failed" else "best" if query.aspect == "best" else "all"
    return {**_plain(query), "about": about}


def _step(query: Query) -> dict[str, Any]:
    given = _plain(query)
    if query.text == "beside":
        return {**given, "other_stage": query.field}
    if query.text == "memory":
        return {**given, "kind": "steps", "about": "out_of_memory"}
    if query.field:
        return {**given, "kind": "figure", "figure": query.field}
    if query.text == "share":
        return {**given, "about": "share"}
    if query.step or query.stage:
        return {**given, "about": given["about"].replace("longest", "time")}
    whole = {"failure": "failures", "memory": "memory", "longest": "longest", "estimate": "estimates"}
    about = "late" if query.text == "slower" else whole.get(given["about"], "time")
    return {**given, "kind": "steps", "about": about}


def _cases(query: Query) -> dict[str, Any]:
    given = query.model_dump()
    if query.text:
        return {**given, "kind": "case", "case": query.text, "about": "wanted" if query.aspect == "why" else "answers"}
    if query.aspect in ("count", "list") and not (query.outcome or query.arm or query.field):
        return {**given, "kind": "suite", "about": "cases" if query.aspect == "list" else "counts"}
    if query.other_run:
        return {**given, "kind": "compare_runs", "about": "cases"}
    return {**given, "outcome": query.outcome or ("any" if query.aspect == "list" else "failed"), "label": query.field}


def _compare(query: Query) -> dict[str, Any]:
    given = _plain(query)
    return given if query.arm and not query.other_run else {**given, "kind": "compare_runs"}


def _setting(query: Query) -> dict[str, Any]:
    given = query.model_dump()
    if not query.field:
        about = "defaults" if query.text == "default" else "by_hand" if query.aspect == "who" else "used"
        return {**given, "kind": "settings", "about": about}
    fields = tuple(query.field.split(","))
    value: object = None
    if query.aspect == "best":
        numbers = [number for number, _, _ in numbers_in(query.text)]
        value = values_named(query.text, tuple(filter(None, (query.stage, "train"))), query.text).get(fields[0])
        value = value if value is not None else numbers[0] if len(numbers) == 1 else None
    about = "sensible" if query.aspect == "best" else "default" if query.text == "default" else "value"
    role = query.text if query.text in ("teacher", "driver") else "base"
    number = value if isinstance(value, int | float) else None
    return {**given, "fields": fields, "about": about, "value": number, "role": role}


def _approvals(query: Query) -> dict[str, Any]:
    return {**_plain(query), "decision": "unasked" if query.aspect == "status" else query.decision or "any"}


def _rows(query: Query) -> dict[str, Any]:
    given = _plain(query)
    if query.aspect == "longest":
        return {**given, "about": "length" if query.field in _SPREAD else query.field}
    if query.text:
        return {**given, "kind": "row", "row": query.text}
    split = query.field if query.field in ("train", "valid") else ""
    return {**given, "split": split, "reason": "" if split else query.field}


def _curve(query: Query) -> dict[str, Any]:
    return {**query.model_dump(), "metric": _ABOUT["curve"].get(query.field, query.field)}


def _artifact(query: Query) -> dict[str, Any]:
    given = _plain(query)
    if query.text[:1] == "a" and query.text[1:].isdigit():
        return {**given, "artifact": query.text}
    if query.aspect in ("disk", "longest") and not query.arm:
        return {**given, "kind": "disk_use", "about": "largest" if query.aspect == "longest" else "total",
                "made": query.text}  # fmt: skip
    return {**given, "made": query.arm or query.text}


def _served(query: Query) -> dict[str, Any]:
    return {**_plain(query), "about": "history" if query.aspect == "when" else "now"}


def _described(query: Query) -> dict[str, Any]:
    return {**query.model_dump(), "part": query.field or "whole"}


def _price(query: Query) -> dict[str, Any]:
    values = values_named(query.text, (query.stage,), query.text)
    times = {name: by for name, by in factors_named(query.text, query.stage).items() if name not in values}
    return {**query.model_dump(), "values": values, "times": times}


def _across(query: Query) -> dict[str, Any]:
    figure = "setting" if query.field else _ABOUT["across"].get(query.aspect, "pass_rate")
    return {**query.model_dump(), "figure": figure, "order": "least" if query.text == "least" else "most"}


def _confusion(query: Query) -> dict[str, Any]:
    return {**query.model_dump(), "about": query.text if query.text in ("checks", "reader") else "labels"}


def _machine(query: Query) -> dict[str, Any]:
    return {"kind": "machine", "part": _ABOUT["machine"].get(query.aspect, "all")}


_SPECIAL = {
    "fits": _fits, "runs": _runs, "step": _step, "cases": _cases, "compare": _compare, "setting": _setting,
    "approvals": _approvals, "rows": _rows, "curve": _curve, "artifact": _artifact, "served": _served,
    "described": _described, "price": _price, "across": _across, "confusion": _confusion, "machine": _machine,
}  # fmt: skip
