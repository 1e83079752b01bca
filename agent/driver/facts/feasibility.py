"""Would a model be trained, measured, merged, quantized or served: here, or on a card. By arithmetic alone.

The memory is that of the steps' own plans (`needs`); nothing is downloaded for an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.agent.driver.facts.answer import Answer, Question, clip, listed
from tunesmith.agent.driver.facts.needs import Need, machine_of, needs_of, needs_of_a_card
from tunesmith.memory.errors import NotFound
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.core.machine import Machine, chosen_gpu
from tunesmith.tools.core.stage import GIB, Facts, Plan
from tunesmith.tools.machine.cards import card_of_size
from tunesmith.tools.models.model_names import NamedModel, SeveralSizes, named_model, usual_models
from tunesmith.tools.pipeline.fits import ROW_TOKENS, ROWS, facts_here, fits, quantized_bytes, with_card

_DAY_S = 8 * 3600.0


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that there is: in all, and free now."""

    name: str
    total_bytes: int
    free_bytes: int


def answer(question: Question) -> Answer:
    """The verdict first, then the sum and what else would do. Raises NotFound for a model that nobody knows."""
    query = question.query
    if query.text and not query.card_gib:
        raise NotFound(f"The memory of a {clip(query.text, 40)} is not known here; say it, such as “a 16 GB card”.")
    facts = facts_here(question.store, vllm=question.ws.vllm)
    if query.card_gib:
        of_ram, card = query.aspect == "ram", card_of_size(query.card_gib)
        facts = machine_of(facts, query.card_gib) if of_ram else with_card(facts.machine, card)
    if not query.model:
        run = question.current
        base = question.store.artifacts(run.id, "base") if run else []
        if query.aspect == "best" or not base:
            return _largest(facts, query.work, query.bits, query.card_gib)
        named = str(base[-1].meta.get("name", "the base"))
        config: Mapping[str, object] = base[-1].meta.get("config", {})
        model = NamedModel(named, config) if config else None
    else:
        try:
            model = named_model(query.model)
        except SeveralSizes as which:
            return Answer((f"{str(which)[0].upper()}{str(which)[1:]}.",))
    if model is None:
        known = listed([model.name for model in usual_models()], 8)
        raise NotFound(
            f"The shape of {clip(query.model, 60)} is not known here; say its size (such as 7b), or one of {known}."
        )
    if query.aspect == "disk":
        return Answer(tuple(_disk(model, facts.machine, query.bits)))
    rooms = _rooms(facts, query.card_gib)
    if query.aspect == "gpu" and query.work not in ("merge",) and "VRAM" not in rooms:
        needs = needs_of_a_card(model, facts)
        return Answer(tuple(_of_no_card(model, needs, query.work or "train", query.bits)))
    needs = needs_of(model, facts)
    if query.aspect == "duration" and query.work in ("", "train"):
        return Answer((_how_long(model, facts), *_lines(model, needs, facts, rooms, "train", query.bits)))
    lines = _lines(model, needs, facts, rooms, query.work, query.bits)
    lines += [_how_long(model, facts)] if query.work == "train" and not query.card_gib and lines[0][:2] != "No" else []
    if query.work and query.bits and not any(n.bits == query.bits for n in _chosen(needs, query.work, query.bits)):
        lines[0] = f"Not at {query.bits} bits, for want of memory; what else would do: {lines[0]}"
    several = _several(needs, query.work, query.bits, query.cards, query.card_gib) if query.cards > 1 else []
    return Answer((lines[0], *several, *lines[1:]))


def _several(needs: Sequence[Need], work: str, bits: int, cards: int, card_gib: float) -> list[str]:
    """What several cards would change: nothing here, and what they could hold in other hands."""
    together = int(cards * card_gib * GIB)
    on_cards = [need for need in _chosen(needs, work, bits) if need.memory == "VRAM" and need.bytes <= together]
    held = listed([f"{need.name} ({size(need.bytes)})" for need in sorted(on_cards, key=lambda n: n.bytes)], 3)
    return [
        f"That is one card: tunesmith works on one at a time and splits no model. The {cards} together have "
        f"{size(together)}, which would hold {f'in a program that splits it: {held}' if held else 'none of it either'}."
    ]


def _a(model: NamedModel) -> str:
    """The model as it is spoken of: by its name, or as one of its size."""
    if not model.approximate:
        return model.name
    return f"an {model.name} model" if model.name.startswith(("8", "11", "18", "80")) else f"a {model.name} model"


def _disk(model: NamedModel, machine: Machine, bits: int = 0) -> list[str]:
    """What the files of a model take: its own, and those that a whole fine-tune makes beside them."""
    whole, free = 2 * model.parameters, machine.disk_free_bytes
    quantized = quantized_bytes(model, "W4A16")
    total = 2 * whole + quantized
    name = _a(model)
    at_bits = [
        f"At {bits} bits the files of {name} take about "
        f"{size(quantized_bytes(model, 'W4A16' if bits == 4 else 'W8A8'))}."
    ] if bits in (4, 8) else []  # fmt: skip
    verdict = "fits" if total <= free else "does not fit"
    return [
        *at_bits,
        f"The files of {name} take about {size(whole)} (16 bits, {model.parameters / 1e9:.2f} billion parameters).",
        f"A whole fine-tune of it takes about {size(total)}: base and merged model {size(whole)} each, quantized to 4 "
        f"bits {size(quantized)}; the adapter is small.",
        f"Free here: {size(free)}, so the whole {verdict}.",
    ]


def _of_no_card(model: NamedModel, needs: Sequence[Need], work: str, bits: int) -> list[str]:
    """What a card would have to have, where this machine has none."""
    chosen = [need for need in _chosen(needs, work, bits) if need.memory == "VRAM"] or list(_chosen(needs, work, bits))
    chosen = sorted(chosen, key=lambda need: need.bytes)
    name = _a(model)
    first = f"{_VERBS[work][0].upper()}{_VERBS[work][1:]} {name} needs about {size(chosen[0].bytes)} of VRAM"
    rest = [f"  {need.name}: {size(need.bytes)}" for need in chosen[1:4]]
    return [
        f"{first} ({chosen[0].name}); this machine has no GPU, so it would be computed in its RAM.",
        *rest,
        _why(model, work),
    ]


def _rooms(facts: Facts, card_gib: float) -> dict[str, Room]:
    machine = facts.machine
    where = f"a machine of {card_gib:g} GB" if card_gib and not machine.gpus else "this machine"
    rooms = {"RAM": Room(where, machine.ram_total_bytes + machine.swap_free_bytes, machine.memory_free_bytes)}
    card = chosen_gpu(machine.gpus)
    if card and (facts.trains_on_gpu or facts.serves_on_gpu):
        rooms["VRAM"] = Room(card.name if card_gib else f"the {card.name}", card.total_bytes, card.free_bytes)
    return rooms


def _chosen(needs: Sequence[Need], work: str, bits: int) -> list[Need]:
    if not work:
        return [need for need in needs if bits in (0, need.bits)]
    of_work = [need for need in needs if need.work == work]
    return [need for need in of_work if bits in (0, need.bits) or work in ("merge", "quantize")] or of_work


_VERBS = {"train": "training", "serve": "serving", "measure": "measuring", "merge": "merging", "quantize": "quantizing"}


def _lines(
    model: NamedModel, needs: Sequence[Need], facts: Facts, rooms: Mapping[str, Room], work: str, bits: int
) -> list[str]:
    if not work:
        return _all_works(model, needs, rooms, bits)
    chosen = _chosen(needs, work, bits)
    fitting = [need for need in chosen if _fits(need, rooms)]
    # The verdict is about the way that needs least; of quantizing every need has to be met.
    together = work == "quantize"
    least = max(chosen, key=lambda need: need.bytes) if together else min(chosen, key=lambda need: need.bytes)
    good = len(fitting) == len(chosen) if together else bool(fitting)
    best = least if together or not fitting else max(fitting, key=lambda need: (need.bits, need.bytes))
    lines = [_verdict(model, best if good else least, rooms, good, work)]
    if not together:
        rest = [need for need in chosen if need is not (best if good else least)]
        lines += [
            f"  {need.name}: {size(need.bytes)} of "
            f"{need.memory}{'' if _fits(need, rooms) else ', which is more than there is'}"
            for need in rest[:3]
        ]
    lines.append(_why(model, work))
    if not good:
        lines.append(_instead(facts, rooms, work, bits))
    return lines


def _verdict(model: NamedModel, need: Need, rooms: Mapping[str, Room], good: bool, work: str) -> str:
    room = rooms.get(need.memory)
    name = _a(model)
    what = f"{_VERBS[work]} {name}" + (
        f" by {need.name},"
        if work == "train"
        else f" {need.name.partition(' ')[2]}"
        if work in ("serve", "measure")
        else ""
    )
    needs = f"{what} needs about {size(need.bytes)} of {need.memory}"
    if need.lacks and room and need.bytes <= room.free_bytes:
        return f"No: {what} {need.lacks}."
    if room is None:
        return f"No: {needs}, and there is no GPU here."
    if card := room.name.startswith(("a card", "a machine")):
        have = f"{room.name} has {size(room.total_bytes)}"
    else:
        have = f"{room.name} has {size(room.total_bytes)}, {size(room.free_bytes)} of it free"
    if good and need.bytes <= room.free_bytes:
        return f"Yes: {needs}; {have}."
    if good or (not card and need.bytes <= room.total_bytes):
        return f"Only once other programs leave: {needs}; {have}."
    return f"No: {needs}; {have}."


def _fits(need: Need, rooms: Mapping[str, Room]) -> bool:
    room = rooms.get(need.memory)
    return room is not None and need.bytes <= room.free_bytes and not need.lacks


def _why(model: NamedModel, work: str) -> str:
    shape = model.shape
    mixture = f", {shape.experts} experts of which {shape.experts_per_token} work on a token" if shape.experts else ""
    stands = " (the usual shape of that size)" if model.approximate else ""
    size = (
        f"{model.parameters / 1e9:.2f} billion parameters{stands}, {shape.layers} layers, hidden size "
        f"{shape.hidden}{mixture}"
    )
    terms = {
        "train": "frozen weights, what backpropagation keeps of every token, and the adapter with its optimiser",
        "serve": "weights, the cache of keys and values, and vLLM itself",
        "measure": "weights, the cache of keys and values, and vLLM itself",
        "merge": "three fp32 copies of the largest matrix, or one layer and the head while logits are compared",
        "quantize": "one layer, what a batch of calibration rows leaves in it, and its Hessians",
    }
    return f"The sum: {terms.get(work, 'weights and what works on them')}; {size}."


def _training_of(model: NamedModel, facts: Facts) -> Plan:
    """The training that would be chosen: the first that fits."""
    tasks = fits(model, facts).of("train")
    return next((task for task in tasks if task.fits), tasks[-1]).plan


def _how_long(model: NamedModel, facts: Facts) -> str:
    plan = _training_of(model, facts)
    epochs = plan.request["epochs"]
    return (
        f"On this machine {ROWS} rows of {ROW_TOKENS} tokens and {epochs:g} epoch{'s' if epochs != 1 else ''} would "
        f"take about {duration(plan.estimate.seconds)}, by {plan.estimate.basis}."
    )


def _instead(facts: Facts, rooms: Mapping[str, Room], work: str, bits: int) -> str:
    """The largest usual size that would do."""
    for model in reversed(usual_models()):
        chosen = _chosen(needs_of(model, facts), work, bits)
        met = [_fits(need, rooms) for need in chosen]
        if all(met) if work == "quantize" else any(met):
            least = max if work == "quantize" else min
            need = least(chosen, key=lambda one: one.bytes)
            return f"The largest usual model that would go: {model.name} ({size(need.bytes)})."
    return "None of the usual sizes would go."


def _all_works(model: NamedModel, needs: Sequence[Need], rooms: Mapping[str, Room], bits: int) -> list[str]:
    name = _a(model)
    good: list[str] = []
    bad: list[str] = []
    lines: list[str] = []
    for work in ("train", "measure", "serve", "merge", "quantize"):
        chosen = _chosen(needs, work, bits)
        met = [_fits(need, rooms) for need in chosen]
        fits = all(met) if work == "quantize" else any(met)
        (good if fits else bad).append(_VERBS[work])
        shown = [need for need, ok in zip(chosen, met, strict=True) if ok == fits] or chosen
        need = max(shown, key=lambda one: one.bytes) if work == "quantize" else (
            max(shown, key=lambda one: (one.bits, -one.bytes)) if fits else min(shown, key=lambda one: one.bytes)
        )  # fmt: skip
        lines.append(
            f"  {_VERBS[work]}: {size(need.bytes)} of {need.memory} ({need.name}): {'fits' if fits else 'too much'}"
        )
    room = list(rooms.values())[-1]
    yes = {_VERBS["train"], _VERBS["serve"]} & set(good)
    first = f"Yes, {name} fits for {listed(good)}" if yes else f"No, {name} is too large here for {listed(bad)}"
    first += (
        f", not for {listed(bad)}" if yes and bad else f" (only {listed(good)} would go)" if good and not yes else ""
    )
    return [f"{first}; {room.name} has {size(room.free_bytes)} free of {size(room.total_bytes)}.", *lines]


def _in_time(times: Sequence[tuple[str, float]]) -> list[str]:
    """How long training takes of the largest that fits, and the largest that is trained within a working day."""
    if not times:
        return []
    name, longest = times[-1]
    lines = [f"    {name} would take about {duration(longest)} for {ROWS} rows"]
    soon = [(other, seconds) for other, seconds in times if seconds <= _DAY_S]
    if longest > _DAY_S:
        lines[0] += "; within 8 hours: " + (
            f"up to {soon[-1][0]} ({duration(soon[-1][1])})" if soon else "none of the usual sizes"
        )
    return lines


def _largest(facts: Facts, work: str, bits: int, card_gib: float) -> Answer:
    rooms = _rooms(facts, card_gib)
    room = rooms.get("VRAM", rooms["RAM"])
    first = (
        f"{room.name[0].upper()}{room.name[1:]} has {size(room.free_bytes)} free of "
        f"{size(room.total_bytes)}; the largest usual sizes that fit:"
    )
    lines = [first]
    for one in [work] if work else ["train", "serve", "quantize"]:
        sizes: list[str] = []
        times: list[tuple[str, float]] = []
        for model in usual_models():
            chosen = _chosen(needs_of(model, facts), one, bits)
            met = [_fits(need, rooms) for need in chosen]
            if all(met) if one == "quantize" else any(met):
                best = max((n for n, ok in zip(chosen, met, strict=True) if ok), key=lambda n: (n.bits, n.bytes))
                sizes.append(f"{model.name} ({best.name}: {size(best.bytes)})")
                if one == "train":
                    times.append((model.name, _training_of(model, facts).estimate.seconds))
        lines.append(f"  {_VERBS[one]}: up to {sizes[-1]}" if sizes else f"  {_VERBS[one]}: none of the usual sizes")
        lines += _in_time(times)
    return Answer(tuple(lines))
