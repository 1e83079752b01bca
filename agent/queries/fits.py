"""Would a model be trained, measured, merged, quantized or served: here, or on other hardware. By arithmetic alone.

Every figure and verdict is that of the steps' own plans; nothing is downloaded for an answer.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.answer import Context, clip
from tunesmith.agent.queries.facts import Fact, Query, Result
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.tools.core.format import listed
from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.core.stage import Facts, Plan
from tunesmith.tools.machine.cards import card_of, card_of_size
from tunesmith.tools.models.known_bases import known_base
from tunesmith.tools.models.model_names import NamedModel, named_model, usual_models
from tunesmith.tools.pipeline import fits as plans

Work = Literal["", "train", "measure", "serve", "merge", "quantize"]
CARDS_GIB = (8, 12, 16, 24, 32, 48, 80, 141, 192, 640)
"""Sizes of single cards that are sold, and of a server of eight."""
_BITS = {"bf16": 16, "FP8": 8, "W8A8": 8, "W4A16": 4, "nf4": 4}
_SCHEMES = {4: "W4A16", 8: "W8A8"}
_ROWS = {"for_rows": plans.ROWS, "row_tokens": plans.ROW_TOKENS}
"""What every time and memory is for."""
_MOST_FIT, _MOST_TOO_LARGE = 6, 2
"""Of the usual models, the largest that fit and the smallest that do not."""


class FitsQuery(Query):
    """Whether a model fits here or another card: memory, time, disk, what would instead."""

    kind: Literal["fits"] = "fits"
    model: Annotated[str, Field(description="Qwen3-8B, 7b; empty: the run's base and the usual sizes")] = ""
    work: Annotated[Work, Field(description="empty: all of it")] = ""
    bits: Annotated[Literal[0, 4, 8, 16], Field(description="0: any")] = 0
    card: Annotated[str, Field(description="Another: 4090, 24, 2x24; empty: this machine")] = ""
    cards: Annotated[int, Field(ge=1)] = 1
    ram_gib: Annotated[float, Field(ge=0, description="0: this machine's")] = 0.0


def answer(query: FitsQuery, context: Context) -> Result:
    """The facts of one model, else of the usual ones. Raises NotFound for a model, BadInput for a card or bits that
    nobody knows."""
    card = card_of(f"{query.cards}x{query.card}" if query.cards > 1 else query.card) if query.card else None
    facts = plans.facts_here(context.store, vllm=context.ws.vllm, card=card, ram_gib=query.ram_gib)
    of = _machine(query, facts)
    if not query.model:
        return _usual(query, context, facts, of)
    model = _model(query.model)
    forecast = plans.fits(model, facts)
    tasks = _tasks(query, model, facts, forecast)
    least = {} if facts.machine.gpus or query.ram_gib else _least_cards(model, facts)
    told = [{**_fact(task, facts), "least_card_vram_bytes": least.get((task.task, task.precision))} for task in tasks]
    says = [] if query.work else [str(forecast.decided)]
    notes = [tasks[0].plan.estimate.basis] if query.work else []
    notes += [card.note] if card and card.note else []
    every = (*told, *([] if query.work else [_files(model, facts)]))
    return Result(every, {**_shape(model), **of}, says=tuple(says), notes=tuple(notes))


def _model(name: str) -> NamedModel:
    """A packaged model by its name, a published one, or one of a size. Raises NotFound, and SeveralSizes for a family's
    name."""
    packaged = known_base(name)
    known = NamedModel(packaged.title, packaged.config) if packaged else named_model(name)
    if known is None:
        usual = listed([usual.name for usual in usual_models()], 8)
        raise NotFound(f"No size of {clip(name, 60)} is known; say one, such as 7b, or one of {usual}.")
    return known


def _tasks(query: FitsQuery, model: NamedModel, facts: Facts, forecast: plans.Fits) -> list[plans.Task]:
    """The tasks of the work at the bits that were named. Raises BadInput where it is not done at these."""
    if query.work == "quantize" and (scheme := _SCHEMES.get(query.bits)):
        return [plans.Task("quantize", scheme, plans.plan_of("quantize", model, facts, scheme=scheme))]
    of_work = [task for task in forecast.tasks if task.task not in plans.PREPARING and query.work in ("", task.task)]
    chosen = [task for task in of_work if query.bits in (0, _BITS[task.precision])]
    if not chosen:
        done_at = listed([str(bits) for bits in sorted({_BITS[task.precision] for task in of_work})])
        raise BadInput(f"{query.work} is done at {done_at} bits, not at {query.bits}; leave bits out")
    return chosen


def _fact(task: plans.Task, facts: Facts) -> Fact:
    """One kind of work at one precision: exactly that fits or does not; what would do instead stands beside it."""
    price, machine = task.plan.estimate, facts.machine
    free = price.peak_vram_bytes <= machine.vram_free_bytes and price.peak_ram_bytes <= machine.memory_free_bytes
    return {
        "work": task.task, "bits": _BITS[task.precision], "fits": task.fits,
        "fits_now": task.fits and free if facts.here else None, "cards": price.cards if price.cards > 1 else None,
        **_price(task.plan), "way": task.settings,
        "instead": [str(one) for one in task.plan.fitting] or [*task.plan.refusals[:1]],
    }  # fmt: skip


def _price(plan: Plan, of: str = "") -> Fact:
    price = plan.estimate
    return {f"{of}peak_vram_bytes": price.peak_vram_bytes or None, f"{of}peak_ram_bytes": price.peak_ram_bytes or None,
            f"{of}estimated_seconds": price.seconds}  # fmt: skip


def _least_cards(model: NamedModel, facts: Facts) -> dict[tuple[str, str], int]:
    """Task and precision → the memory of the smallest usual card on which it fits."""
    least: dict[tuple[str, str], int] = {}
    for card_gib in CARDS_GIB:
        on_card = plans.with_card(facts.machine, card_of_size(card_gib), home=facts.home)
        for task in plans.fits(model, on_card).tasks:
            if task.fits:
                least.setdefault((task.task, task.precision), card_gib << 30)
    return least


def _shape(model: NamedModel) -> Fact:
    """Its sizes; of one that only stands for a size, none but that."""
    shape, of = model.shape, {"model": model.name, "parameters": model.parameters}
    if model.approximate:
        return {**of, "shape": "usual of its size"}
    mixture = {"experts": shape.experts, "experts_per_token": shape.experts_per_token} if shape.experts else {}
    return {**of, "layers": shape.layers, "hidden_size": shape.hidden, **mixture}


def _machine(query: FitsQuery, facts: Facts) -> Fact:
    """The memory that a plan may count on, and what of it is free now; on another machine nothing was measured."""
    machine, gpu = facts.machine, chosen_gpu(facts.machine.gpus)
    room = {"gpu": gpu.name if gpu else "none", "vram_bytes": machine.vram_room_on(1) or None,
            "ram_bytes": machine.memory_room_bytes}  # fmt: skip
    if query.card or query.ram_gib:
        return {"machine": "another, not measured", **room, **_ROWS}
    free = {"vram_free_bytes": machine.vram_free_bytes or None, "ram_free_bytes": machine.memory_free_bytes}
    return {"machine": "this one", **room, **free, "disk_free_bytes": machine.disk_free_bytes, **_ROWS}


def _files(model: NamedModel, facts: Facts) -> Fact:
    """What the files of a model take, and those that a whole fine-tune makes: base and merged model, and quantized."""
    whole, four, eight = 2 * model.parameters, *(plans.quantized_bytes(model, one) for one in ("W4A16", "W8A8"))
    fits = 2 * whole + four <= facts.machine.disk_free_bytes if facts.here else None
    return {"files_at_16_bits_bytes": whole, "files_at_8_bits_bytes": eight, "files_at_4_bits_bytes": four,
            "files_of_whole_fine_tune_bytes": 2 * whole + four, "whole_fine_tune_fits_the_disk": fits}  # fmt: skip


# The usual sizes


def _usual(query: FitsQuery, context: Context, facts: Facts, of: Fact) -> Result:
    """The base of the run, and of the usual models the largest that fit and the smallest that do not."""
    each = [_in_short(query, model, facts) for model in usual_models()]
    fitting, too_large = ([one for one in each if one["fits"] is good] for good in (True, False))
    shown = [*fitting[-_MOST_FIT:], *too_large[:_MOST_TOO_LARGE]]
    base = context.store.artifacts(context.current.id, "base")[-1:] if context.current else []
    own = [NamedModel(f"{a.meta.get('name', 'base')} of {a.run}", a.known_config) for a in base if a.known_config]
    largest = fitting[-1]["model"] if fitting else "none of the usual sizes"
    left = {"usual models": len(each) - len(shown)} if len(each) > len(shown) else {}
    first = (_in_short(query, model, facts) for model in own)
    return Result((*first, *shown), {"largest_that_fits": largest, "work": query.work, **of}, left_out=left)


def _in_short(query: FitsQuery, model: NamedModel, facts: Facts) -> Fact:
    """A model in a line: of one work its best way that fits, else what a plan for all of it would do."""
    forecast, fact = plans.fits(model, facts), {"model": model.name, "parameters": model.parameters}
    if query.work or query.bits:
        tasks = _tasks(query, model, facts, forecast)
        best = max(tasks, key=lambda task: (task.fits, _BITS[task.precision] * task.fits, -task.peak_bytes))
        why = next(iter(best.plan.refusals), None)
        return {**fact, "fits": best.fits, "bits": _BITS[best.precision], **_price(best.plan), "why_not": why}
    decided = forecast.decided
    return {
        **fact, "fits": not decided.lacks, "lacks": [work for work in decided.lacks if work not in plans.PREPARING],
        "trains_at_bits": decided.trained, "deploys_at_bits": decided.deployed,
        **_price(decided.plans["train"], "train_"),
    }  # fmt: skip
