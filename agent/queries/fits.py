"""Would a model be trained, measured, merged, quantized or served: here, or on other hardware. By arithmetic alone.

The memory is that of the steps' own plans (`needs`); nothing is downloaded for an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.answer import Answer, Context, clip
from tunesmith.agent.queries.arguments import Query
from tunesmith.agent.queries.machine import Need, needs_in, needs_of_a_card
from tunesmith.memory.errors import NotFound
from tunesmith.tools.core.format import duration, listed, size
from tunesmith.tools.core.machine import Machine, chosen_gpu
from tunesmith.tools.core.stage import Facts, Plan
from tunesmith.tools.machine.cards import card_of
from tunesmith.tools.models.model_names import NamedModel, SeveralSizes, hub_name, named_model, usual_models
from tunesmith.tools.pipeline.fits import ROW_TOKENS, ROWS, Decided, facts_here, fits, quantized_bytes

Work = Literal["", "train", "measure", "serve", "merge", "quantize"]
_DAY_S = 8 * 3600.0
"""A working day: what takes longer is said to."""
_VERBS = {"train": "training", "serve": "serving", "measure": "measuring", "merge": "merging", "quantize": "quantizing"}

_DONE = {"train": "trained", "measure": "measured", "serve": "served"}


class FitsQuery(Query):
    """Whether a model would fit here or on other hardware, the largest that would, what its files take, how long
    training would take."""

    kind: Literal["fits"] = "fits"
    about: Literal["fit", "largest", "vram", "disk", "time"] = "fit"
    """fit: does it fit. largest: the largest models that do. vram: what a card must have. disk: its files. time: of a
    training here."""
    model: Annotated[str, Field(description="Name or size, such as Qwen3-8B or 7b; empty: the base of the run")] = ""
    work: Annotated[Work, Field(description="empty: all of it")] = ""
    bits: Annotated[Literal[0, 4, 8, 16], Field(description="Bits of the weights; 0: any")] = 0
    card: Annotated[str, Field(description="Another card, by name or GiB, such as 4090 or 24; empty: this machine")] = (
        ""
    )
    cards: Annotated[int, Field(ge=1, description="How many such cards")] = 1
    ram_gib: Annotated[float, Field(ge=0, description="A machine with so much RAM and no card; 0: this one")] = 0.0


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that a plan may count on, and what of it is free now."""

    memory: str
    """RAM or VRAM."""
    name: str
    total_bytes: int
    free_bytes: int
    here: bool = True

    def __str__(self) -> str:
        free = f", {size(self.free_bytes)} of it free" if self.here else ""
        return f"{self.name} has {size(self.total_bytes)}{free}"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question about one model on one machine."""

    query: FitsQuery
    model: NamedModel
    facts: Facts
    rooms: Mapping[str, Room]
    needs: Sequence[Need]
    decided: Decided
    """What a plan for it would do."""

    @classmethod
    def of(cls, query: FitsQuery, model: NamedModel, facts: Facts, rooms: Mapping[str, Room]) -> _Asked:
        """Forecast for a model."""
        forecast = fits(model, facts)
        return cls(query, model, facts, rooms, needs_in(forecast), forecast.decided)

    @property
    def training(self) -> Plan:
        """The one that would be chosen."""
        return self.decided.plans["train"]

    def chosen(self, work: str) -> list[Need]:
        """The needs of a kind of work, at the bits that were named where it has these."""
        return _chosen(self.needs, work, self.query.bits)

    def goes(self, work: str) -> bool:
        """Whether a kind of work would go: of quantizing every need has to be met, of the others one way is enough."""
        met = [need.fits for need in self.chosen(work)]
        return all(met) if work == "quantize" else any(met)

    def lacking(self) -> list[str]:
        """What of training, measuring and serving would not go: a model that lacks one of them is of little use."""
        return [done for work, done in _DONE.items() if work in self.decided.lacks]

    def verdict(self, work: str) -> tuple[Need, bool]:
        """The need that the verdict on a kind of work is about, and whether it would go: of quantizing every need has
        to be met, so the largest; of the others the best way that fits, else the one that needs least."""
        chosen = self.chosen(work)
        if (good := self.goes(work)) and work != "quantize":
            # of those that fit the most exact
            return max((need for need in chosen if need.fits), key=lambda need: (need.bits, need.bytes)), True
        return (max if work == "quantize" else min)(chosen, key=lambda need: need.bytes), good


def answer(query: FitsQuery, context: Context) -> Answer:
    """The verdict first, then the sum and what else would do. Raises NotFound for a model, BadInput for a card that
    nobody knows."""
    card = card_of(query.card) if query.card else None
    facts = facts_here(context.store, vllm=context.ws.vllm, card=card, ram_gib=query.ram_gib)
    rooms = _rooms(query, facts)
    if not (query.card or query.ram_gib):
        return _answer(query, context, facts, rooms)
    reply = _answer(query, context, facts, rooms)
    where = f"on {rooms['VRAM'].name}" if "VRAM" in rooms else "on such a machine"
    return replace(reply, lines=(*reply.lines, f"These are sums; nothing of it was confirmed {where}."))


def _answer(query: FitsQuery, context: Context, facts: Facts, rooms: Mapping[str, Room]) -> Answer:
    if query.about == "largest":
        return _largest(query, facts, rooms)
    try:
        model = _model(query, context)
    except SeveralSizes as sizes:
        return Answer((f"{str(sizes)[0].upper()}{str(sizes)[1:]}.",))
    if model is None:
        return _largest(query, facts, rooms)
    if query.about == "disk":
        return Answer(tuple(_disk(model, facts.machine, query.bits)))
    if query.about == "vram" and query.work != "merge" and "VRAM" not in rooms:
        needs = needs_of_a_card(model, facts)
        return Answer(tuple(_of_no_card(model, needs, query.work or "train", query.bits)), tuple(needs))
    asked = _Asked.of(query, model, facts, rooms)
    if query.about == "time" and query.work in ("", "train"):
        lines = [_how_long(asked), *_lines(asked, "train")]
    else:
        lines = _lines(asked, query.work)
        if query.work == "train" and not (query.card or query.ram_gib) and lines[0].startswith((_FITS, _ONCE)):
            lines.append(_how_long(asked))
        if query.work and query.bits and not any(n.bits == query.bits for n in asked.chosen(query.work)):
            lines[0] = f"Not at {query.bits} bits, for want of memory; what else would do: {lines[0]}"
    lines[1:1] = _several(asked) if query.cards > 1 and "VRAM" in rooms else []
    return Answer(tuple(lines), (*asked.needs, *rooms.values()))


def _model(query: FitsQuery, context: Context) -> NamedModel | None:
    """The model that is named, else the base of the run; None where there is no run. Raises NotFound, SeveralSizes."""
    if query.model:
        model = named_model(query.model)
    else:
        base = context.store.artifacts(context.current.id, "base") if context.current else []
        if not base:
            return None
        config = base[-1].known_config
        model = NamedModel(str(base[-1].meta.get("name", "the base")), config) if config else None
    if model is None:
        known = listed([model.name for model in usual_models()], 8)  # a line; one of each size
        raise NotFound(
            f"The shape of {clip(query.model, 60)} is not known here; say its size (such as 7b), or one of {known}."
        )
    return model


def _rooms(query: FitsQuery, facts: Facts) -> dict[str, Room]:
    machine, here = facts.machine, not (query.card or query.ram_gib)
    where = "this machine" if here or machine.gpus else f"a machine of {query.ram_gib:g} GB"
    rooms = {"RAM": Room("RAM", where, machine.memory_room_bytes, machine.memory_free_bytes, here)}
    card = chosen_gpu(machine.gpus)
    if card and (facts.trains_on_gpu or facts.serves_on_gpu):
        name = f"the {card.name}" if here else card.name
        rooms["VRAM"] = Room("VRAM", name, machine.vram_room_on(1), card.free_bytes, here)
    return rooms


def _chosen(needs: Sequence[Need], work: str, bits: int) -> list[Need]:
    of_work = [need for need in needs if work in ("", need.work)]
    at_bits = [need for need in of_work if bits in (0, need.bits) or work in ("merge", "quantize")]
    return at_bits if not work else at_bits or of_work


def _a(model: NamedModel) -> str:
    """The model as it is spoken of: by its name, or as one of its size."""
    if not model.approximate:
        return model.name
    return f"an {model.name} model" if model.name.startswith(("8", "11", "18", "80")) else f"a {model.name} model"


# One model


def _lines(asked: _Asked, work: str) -> list[str]:
    if not work:
        return _all_works(asked)
    chief, good = asked.verdict(work)
    lines = [_verdict(asked, chief, good)]
    # the next to the one that decides
    for need in [] if work == "quantize" else [need for need in asked.chosen(work) if need is not chief][:3]:
        more = "" if need.fits else ", which is more than there is"
        lines.append(f"  {need.name}: {size(need.bytes)} of {need.memory}{more}")
    if good and work == "train" and (lacking := asked.lacking()):
        lines.append(f"  But it could not be {listed(lacking, 3)} there.")
    return [*lines, _why(asked.model, work), *([] if good else [_instead(asked, work)])]


_FITS, _TOO_LARGE, _ONCE = "It fits", "Too large here", "Only once other programs leave"
"""No yes and no no: “does it fit?” and “is it too much?” ask for one fact, and code cannot tell which was asked."""


def _verdict(asked: _Asked, need: Need, good: bool) -> str:
    room = asked.rooms.get(need.memory)
    by = {"train": f" by {need.name},", "serve": f" {need.name.partition(' ')[2]}"}
    what = f"{_VERBS[need.work]} {_a(asked.model)}{by.get(need.work.replace('measure', 'serve'), '')}"
    needs = f"{what} needs about {size(need.bytes)} of {need.memory}"
    if need.lacks and room and need.bytes <= room.free_bytes:
        return f"{_TOO_LARGE}: {what} {need.lacks}."
    if room is None:
        return f"{_TOO_LARGE}: {needs}, and there is no GPU."
    if good and need.bytes <= room.free_bytes:
        return f"{_FITS}: {needs}; {room}."
    once = good or (room.here and need.bytes <= room.total_bytes)
    return f"{_ONCE if once else _TOO_LARGE}: {needs}; {room}."


def _all_works(asked: _Asked) -> list[str]:
    name, lines = _a(asked.model), []
    verdicts: dict[bool, list[str]] = {True: [], False: []}
    for work, verb in sorted(_VERBS.items(), key=lambda item: list(_ORDER).index(item[0])):
        need, good = asked.verdict(work)
        verdicts[good].append(verb)
        lines.append(f"  {verb}: {size(need.bytes)} of {need.memory} ({need.name}): {'fits' if good else 'too much'}")
    room, good_, bad = list(asked.rooms.values())[-1], verdicts[True], verdicts[False]
    if {_VERBS["train"], _VERBS["serve"]} & set(good_):
        first = f"{name} fits for {listed(good_)}" + (f", not for {listed(bad)}" if bad else "")
    else:
        first = f"{name} is too large here for {listed(bad)}" + (f" (only {listed(good_)} would go)" if good_ else "")
    return [
        f"{first[0].upper()}{first[1:]}; {room}.",
        *lines,
    ]


_ORDER = ("train", "measure", "serve", "merge", "quantize")


def _why(model: NamedModel, work: str) -> str:
    shape = model.shape
    mixture = f", {shape.experts} experts of which {shape.experts_per_token} work on a token" if shape.experts else ""
    sizes = (
        f"{model.parameters / 1e9:.2f} billion parameters, {shape.layers} layers, hidden size {shape.hidden}{mixture}"
    )
    if model.approximate:  # the layers that are counted are another model's
        sizes = f"about {model.parameters / 1e9:.3g} billion parameters, the usual shape of that size: its own is not "
        sizes += "known here"
    serving = "weights, the cache of keys and values, and vLLM itself"
    terms = {
        "train": "frozen weights, what backpropagation keeps of every token, and the adapter with its optimiser",
        "serve": serving,
        "measure": serving,
        "merge": "three fp32 copies of the largest matrix, or one layer and the head while logits are compared",
        "quantize": "one layer, what a batch of calibration rows leaves in it, and its Hessians",
    }
    return f"The sum: {terms.get(work, 'weights and what works on them')}; {sizes}."


def _instead(asked: _Asked, work: str) -> str:
    """The largest usual size that would do; of a training one that can be measured and served, too."""
    first = ""
    for model in reversed(usual_models()):
        other = _Asked.of(asked.query, model, asked.facts, asked.rooms)
        if not other.goes(work):
            continue
        need = (max if work == "quantize" else min)(other.chosen(work), key=lambda one: one.bytes)
        if work != "train" or not (lacking := other.lacking()):
            all_of_it = " in all of it" if first else ""
            return f"The largest usual model that would go{all_of_it}: {model.name} ({size(need.bytes)}).{first}"
        first = first or f" {model.name} could be trained ({size(need.bytes)}), but not {listed(lacking, 3)}."
    return first.strip() or "None of the usual sizes would go."


def _several(asked: _Asked) -> list[str]:
    """What several cards would change: a training shares its rows over them, and what serves is split over them."""
    query, card = asked.query, asked.rooms["VRAM"]
    together = query.cards * card.total_bytes
    served = {need.name: need for work in ("measure", "serve") for need in asked.chosen(work)}.values()
    within = [need for need in served if need.memory == "VRAM" and need.bytes <= together]
    # the smallest ones: they are what could be begun with
    names = listed([f"{need.name} ({size(need.bytes)})" for need in sorted(within, key=lambda n: n.bytes)], 3)
    return [
        "That is one card: a training shares its rows over several, and each holds the whole model. What measures "
        f"and serves is split over them: the {query.cards} together have {size(together)}, which would hold "
        f"{f'by size alone {names}' if within else 'none of it either'}."
    ]


def _disk(model: NamedModel, machine: Machine, bits: int) -> list[str]:
    """What the files of a model take: its own, and those that a whole fine-tune makes beside them."""
    whole, free, name = 2 * model.parameters, machine.disk_free_bytes, _a(model)
    quantized = quantized_bytes(model, "W4A16")
    total = 2 * whole + quantized
    at_bits = size(quantized_bytes(model, "W4A16" if bits == 4 else "W8A8"))
    lines = [f"At {bits} bits the files of {name} take about {at_bits}."] if bits in (4, 8) else []
    return [
        *lines,
        f"The files of {name} take about {size(whole)} (16 bits, {model.parameters / 1e9:.2f} billion parameters).",
        f"A whole fine-tune of it takes about {size(total)}: base and merged model {size(whole)} each, quantized to 4 "
        f"bits {size(quantized)}; the adapter is small.",
        f"Free here: {size(free)}, so the whole {'fits' if total <= free else 'does not fit'}.",
    ]


def _of_no_card(model: NamedModel, needs: Sequence[Need], work: str, bits: int) -> list[str]:
    """What a card would have to have, where this machine has none."""
    chosen = _chosen(needs, work, bits)
    first, *rest = sorted([n for n in chosen if n.memory == "VRAM"] or chosen, key=lambda need: need.bytes)
    verb = _VERBS[work].capitalize()
    return [
        f"{verb} {_a(model)} needs about {size(first.bytes)} of VRAM ({first.name}); this machine has no GPU, so it "
        f"would be computed in its RAM.",
        *(f"  {need.name}: {size(need.bytes)}" for need in rest[:3]),  # what decides comes first
        _why(model, work),
    ]


def _how_long(asked: _Asked) -> str:
    query, plan = asked.query, asked.training
    where = "On such a machine" if query.ram_gib else "On such a card" if query.card else "On this machine"
    epochs = plan.request["epochs"]
    return (
        f"{where} {ROWS} rows of {ROW_TOKENS} tokens and {epochs:g} epoch{'s' if epochs != 1 else ''} would "
        f"take about {duration(plan.estimate.seconds)}, by {plan.estimate.basis}."
    )


# The largest


def _largest(query: FitsQuery, facts: Facts, rooms: Mapping[str, Room]) -> Answer:
    room = rooms.get("VRAM", rooms["RAM"])
    lines = [f"{str(room)[0].upper()}{str(room)[1:]}; the largest usual sizes that fit:"]
    models = [_Asked.of(query, model, facts, rooms) for model in usual_models()]
    whole = [asked.model.name for asked in models if not asked.lacking()]
    if not query.work:
        lines.append(
            f"  training, measuring and serving: {f'up to {whole[-1]}' if whole else 'none of the usual sizes'}"
        )
    for work in [query.work] if query.work else ["train", "serve", "quantize"]:
        sizes: list[str] = []
        times: list[tuple[str, float]] = []
        for asked in models:
            if asked.goes(work):
                # the most exact that fits
                best = max((n for n in asked.chosen(work) if n.fits), key=lambda n: (n.bits, n.bytes))
                sizes.append(f"{asked.model.name} ({best.name}: {size(best.bytes)})")
                if work == "train":
                    times.append((asked.model.name, asked.training.estimate.seconds))
        lacking = next((asked.lacking() for asked in reversed(models) if asked.goes(work)), [])
        but = f"; it could not be {listed(lacking, 3)}" if lacking and work != "quantize" else ""
        lines.append(
            f"  {_VERBS[work]} alone: up to {sizes[-1]}{but}" if sizes else f"  {_VERBS[work]}: none of the usual sizes"
        )
        lines += _in_time([one for one in times if one[0] in whole] or times)
    if not (query.card or query.ram_gib):
        gpu = "" if "VRAM" in rooms else "no GPU that is used; "
        lines.append(f"This machine: {gpu}{size(facts.machine.disk_free_bytes)} of disk free.")
        lines += [f"“base model={hub_name(whole[-1])}” prices fetching {whole[-1]}; nothing is begun."] if whole else []
    return Answer(tuple(lines), tuple(rooms.values()))


def _in_time(times: Sequence[tuple[str, float]]) -> list[str]:
    """How long training takes of the largest that fits, and the largest that is trained within a working day."""
    if not times:
        return []
    name, longest = times[-1]
    line = f"    {name} would take about {duration(longest)} for {ROWS} rows"
    if longest > _DAY_S:
        soon = [f"up to {other} ({duration(seconds)})" for other, seconds in times if seconds <= _DAY_S]
        line += f"; within 8 hours: {soon[-1] if soon else 'none of the usual sizes'}"
    return [line]
