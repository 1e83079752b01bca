"""Would a model be trained, measured, merged, quantized or served: here, or on other hardware. By arithmetic alone.

Every figure and verdict is that of the steps' own plans; nothing is downloaded for an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.answer import Context, clip
from tunesmith.agent.queries.arguments import Query
from tunesmith.agent.queries.facts import Fact, Result
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.tools.core.format import listed
from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.core.stage import Facts
from tunesmith.tools.machine.cards import Card, card_of, card_of_size
from tunesmith.tools.models.known_bases import known_base
from tunesmith.tools.models.model_names import NamedModel, named_model, usual_models
from tunesmith.tools.pipeline.fits import (
    PREPARING,
    ROW_TOKENS,
    ROWS,
    Fits,
    Task,
    facts_here,
    fits,
    plan_of,
    quantized_bytes,
    with_card,
)

Work = Literal["", "train", "measure", "serve", "merge", "quantize"]
CARDS_GIB = (8, 12, 16, 24, 32, 48, 80, 141, 192, 640)
"""Sizes of single cards that are sold, and of a server of eight."""
_BITS = {"bf16": 16, "FP8": 8, "W8A8": 8, "W4A16": 4, "nf4": 4}
_SCHEMES = {4: "W4A16", 8: "W8A8"}
_MOST_FIT, _MOST_TOO_LARGE = 6, 2
"""Of the usual models, the largest that fit and the smallest that do not."""


class FitsQuery(Query):
    """Whether a model fits here or on another card, for each work and precision: memory, time, disk, and what would fit
    instead; without a model, which of the usual sizes fit."""

    kind: Literal["fits"] = "fits"
    model: Annotated[str, Field(description="Such as Qwen3-8B or 7b; empty: the run's base and the usual sizes")] = ""
    work: Annotated[Work, Field(description="empty: all of it")] = ""
    bits: Annotated[Literal[0, 4, 8, 16], Field(description="Bits of the weights; 0: any")] = 0
    card: Annotated[str, Field(description="Another card, such as 4090, 24 or 2x24; empty: this machine")] = ""
    cards: Annotated[int, Field(ge=1, description="How many such cards")] = 1
    ram_gib: Annotated[float, Field(ge=0, description="Another machine's RAM; 0: this one's")] = 0.0


def answer(query: FitsQuery, context: Context) -> Result:
    """The facts of one model, else of the usual ones. Raises NotFound for a model, BadInput for a card or bits that
    nobody knows."""
    card = card_of(f"{query.cards}x{query.card}" if query.cards > 1 else query.card) if query.card else None
    facts = facts_here(context.store, vllm=context.ws.vllm, card=card, ram_gib=query.ram_gib)
    of = _machine(query, facts, card)
    if not query.model:
        return _usual(query, context, facts, of)
    if (model := _model(query.model)) is None:
        known = listed([usual.name for usual in usual_models()], 8)
        raise NotFound(f"No size of {clip(query.model, 60)} is known; say one, such as 7b, or one of {known}.")
    forecast = fits(model, facts)
    tasks = _tasks(query, model, facts, forecast)
    least = {} if facts.machine.gpus or query.ram_gib else dict(_least_cards(model, facts, tasks))
    told = [{**_fact(task, facts), "least_card_gib": least.get((task.task, task.precision))} for task in tasks]
    refusals = [why for task in tasks for why in task.plan.refusals]
    says = [*dict.fromkeys(refusals), tasks[0].plan.estimate.basis] if query.work else [str(forecast.decided)]
    says += [card.note] if card and card.note else []
    files = [] if query.work else [_files(model, facts)]
    return Result((*told, *files), {**_shape(model), **of}, says=tuple(says))


def _model(name: str) -> NamedModel | None:
    """A packaged model by its name, a published one, or one of a size. Raises SeveralSizes for a family's name."""
    known = known_base(name)
    return NamedModel(known.title, known.config) if known else named_model(name)


def _tasks(query: FitsQuery, model: NamedModel, facts: Facts, forecast: Fits) -> list[Task]:
    """The tasks of the work at the bits that were named. Raises BadInput where it is not done at these."""
    if query.work == "quantize" and (scheme := _SCHEMES.get(query.bits)):
        return [Task("quantize", scheme, plan_of("quantize", model, facts, scheme=scheme))]
    of_work = [task for task in forecast.tasks if task.task not in PREPARING and query.work in ("", task.task)]
    chosen = [task for task in of_work if query.bits in (0, _BITS[task.precision])]
    if not chosen:
        done_at = listed([str(bits) for bits in sorted({_BITS[task.precision] for task in of_work})])
        raise BadInput(f"{query.work} is done at {done_at} bits, not at {query.bits}; leave bits out")
    return chosen


def _fact(task: Task, facts: Facts) -> Fact:
    """One kind of work at one precision: exactly that fits or does not; what would do instead stands beside it."""
    price, free = task.plan.estimate, facts.machine
    now = price.peak_vram_bytes <= free.vram_free_bytes and price.peak_ram_bytes <= free.memory_free_bytes
    return {
        "work": task.task, "bits": _BITS[task.precision], "fits": task.fits,
        "fits_now": task.fits and now if facts.here else None,
        "peak_vram_bytes": price.peak_vram_bytes or None, "peak_ram_bytes": price.peak_ram_bytes or None,
        "cards": price.cards if price.cards > 1 else None, "estimated_seconds": price.seconds,
        "way": task.settings, "instead": [str(one) for one in task.plan.fitting],
    }  # fmt: skip


def _least_cards(model: NamedModel, facts: Facts, tasks: list[Task]) -> Iterator[tuple[tuple[str, str], int]]:
    """Task and precision → the smallest usual card on which it fits; what fits on none is left out."""
    wanted = {(task.task, task.precision) for task in tasks}
    for card_gib in CARDS_GIB:
        on_card = fits(model, with_card(facts.machine, card_of_size(card_gib), home=facts.home)).tasks
        found = {(task.task, task.precision) for task in on_card if task.fits} & wanted
        yield from ((one, card_gib) for one in found)
        wanted -= found
        if not wanted:
            return


def _shape(model: NamedModel) -> Fact:
    """Its sizes; of one that only stands for a size, none but that."""
    shape = model.shape
    if model.approximate:
        return {"model": model.name, "parameters": model.parameters, "usual_shape_of_its_size": True}
    mixture = {"experts": shape.experts, "experts_per_token": shape.experts_per_token} if shape.experts else {}
    return {"model": model.name, "parameters": model.parameters, "layers": shape.layers, "hidden_size": shape.hidden,
            **mixture}  # fmt: skip


def _machine(query: FitsQuery, facts: Facts, card: Card | None) -> Fact:
    """The memory that a plan may count on, and what of it is free now; of another machine it was measured on none."""
    machine, gpu = facts.machine, chosen_gpu(facts.machine.gpus)
    used = gpu is not None and (facts.trains_on_gpu or facts.serves_on_gpu)
    here = not (card or query.ram_gib)
    of: dict[str, object] = {"machine": "this one" if here else "another", "gpu": gpu.name if gpu else "none"}
    of |= {"vram_bytes": machine.vram_room_on(1), "gpu_is_used": None if used else False} if gpu else {}
    of |= {"ram_bytes": machine.memory_room_bytes}
    free = {"vram_free_bytes": machine.vram_free_bytes or None, "ram_free_bytes": machine.memory_free_bytes}
    of |= {**free, "disk_free_bytes": machine.disk_free_bytes} if here else {"measured_there": False}
    return {**of, "for_rows": ROWS, "row_tokens": ROW_TOKENS}


def _files(model: NamedModel, facts: Facts) -> Fact:
    """What the files of a model take, and those that a whole fine-tune makes: base and merged model, and quantized."""
    whole, four, eight = 2 * model.parameters, quantized_bytes(model, "W4A16"), quantized_bytes(model, "W8A8")
    fine_tune = 2 * whole + four
    here = {"whole_fine_tune_fits_the_disk": fine_tune <= facts.machine.disk_free_bytes} if facts.here else {}
    return {"files_at_16_bits_bytes": whole, "files_at_8_bits_bytes": eight, "files_at_4_bits_bytes": four,
            "files_of_whole_fine_tune_bytes": fine_tune, **here}  # fmt: skip


# The usual sizes


def _usual(query: FitsQuery, context: Context, facts: Facts, of: Fact) -> Result:
    """The base of the run, and of the usual models the largest that fit and the smallest that do not."""
    each = [_in_short(query, model, facts) for model in usual_models()]
    fitting, too_large = ([one for one in each if one["fits"] is good] for good in (True, False))
    shown = [*fitting[-_MOST_FIT:], *too_large[:_MOST_TOO_LARGE]]
    own = [_in_short(query, model, facts) for model in _base(context)]
    largest = fitting[-1]["model"] if fitting else "none of the usual sizes"
    left = len(each) - len(shown)
    return Result(
        (*own, *shown),
        {"largest_that_fits": largest, "work": query.work or "all of it", **of},
        left_out={"usual models": left} if left else {},
    )


def _base(context: Context) -> list[NamedModel]:
    """The base of the run that is talked about, where its config is known."""
    base = context.store.artifacts(context.current.id, "base")[-1:] if context.current else []
    return [NamedModel(f"{a.meta.get('name', 'base')} of {a.run}", a.known_config) for a in base if a.known_config]


def _in_short(query: FitsQuery, model: NamedModel, facts: Facts) -> Fact:
    """A model in a line: of one work its best way that fits, of all of it what a plan would do."""
    fact: dict[str, object] = {"model": model.name, "parameters": model.parameters}
    forecast = fits(model, facts)
    if query.work or query.bits:
        tasks = _tasks(query, model, facts, forecast)
        best = max(tasks, key=lambda task: (task.fits, _BITS[task.precision] * task.fits, -task.peak_bytes))
        return {**fact, "fits": best.fits, "bits": _BITS[best.precision], "peak_bytes": best.peak_bytes,
                "memory": "VRAM" if best.vram_bytes else "RAM",
                "estimated_seconds": best.plan.estimate.seconds}  # fmt: skip
    decided = forecast.decided
    training = decided.plans["train"].estimate
    return {
        **fact, "fits": not decided.lacks, "lacks": [work for work in decided.lacks if work not in PREPARING],
        "trains_at_bits": decided.trained, "deploys_at_bits": decided.deployed,
        "peak_to_train_bytes": training.peak_vram_bytes or training.peak_ram_bytes,
        "to_train_seconds": training.seconds,
    }  # fmt: skip
