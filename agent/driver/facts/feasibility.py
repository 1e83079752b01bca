"""Would a model be trained, measured, merged, quantized or served: here, or on a card. By arithmetic alone.

The memory is that of tools/models/memory_math.py, which prices every step; nothing is downloaded for an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.agent.driver.facts.answer import Answer, Question, clip, listed
from tunesmith.memory.errors import NotFound
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.core.stage import GIB, Machine
from tunesmith.tools.machine.gpus import serves_on_cpu
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.models.memory_math import (
    CONTEXT_TOKENS,
    SERVED_SEQUENCES,
    kv_bytes_per_token,
    merge_memory_bytes,
    quantize_memory_bytes,
    quantize_vram_bytes,
    server_memory,
    train_memory_bytes,
)
from tunesmith.tools.models.model_names import NamedModel, named_model, usual_models

_ROW_TOKENS, _BATCH, _RANK = 512, 8, 16
_CALIBRATION = {"samples": 64, "seq_len_tokens": 256}
_BYTES_OF = {16: 2.0, 8: 1.1, 4: 0.62}
"""Bytes a parameter as a served file has them; at 4 bits scales and embeddings count too."""
_FLOPS_HERE = 3e11
"""Of training on two cores, as `train` is priced."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one kind of work needs, and in which memory."""

    name: str
    work: str
    bits: int
    bytes: int
    memory: str
    """RAM or VRAM."""


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that there is: in all, and free now."""

    name: str
    total_bytes: int
    free_bytes: int


def answer(question: Question) -> Answer:
    """The verdict first, then the sum and what else would do. Raises NotFound for a model that nobody knows."""
    query = question.query
    machine = measure_machine(question.store.home)
    vllm = question.ws.vllm
    if not query.model:
        run = question.current
        base = question.store.artifacts(run.id, "base") if run else []
        if query.aspect == "best" or not base:
            return _largest(machine, vllm, query.work, query.bits, query.card_gib)
        named = str(base[-1].meta.get("name", "the base"))
        config: Mapping[str, object] = base[-1].meta.get("config", {})
        model = NamedModel(named, config) if config else None
    else:
        model = named_model(query.model)
    if model is None:
        known = listed([model.name for model in usual_models()], 8)
        raise NotFound(
            f"The shape of {clip(query.model, 60)} is not known here; say its size (such as 7b), or one of {known}."
        )
    if query.aspect == "disk":
        return Answer(tuple(_disk(model, machine, query.bits)))
    asks_card = query.aspect == "gpu" and query.work not in ("merge",)
    needs = needs_of(model, on_card=bool(query.card_gib) or asks_card or _on_gpu(machine, vllm))
    rooms = _rooms(machine, query.card_gib)
    if query.aspect == "ram" and query.card_gib:
        there = int(query.card_gib * GIB)
        needs, rooms = (
            needs_of(model, on_card=False),
            {"RAM": Room(f"a machine of {query.card_gib:g} GB", there, there)},
        )
    if asks_card and "VRAM" not in rooms:
        return Answer(tuple(_of_no_card(model, needs, query.work or "train", query.bits)))
    if query.aspect == "duration" and query.work in ("", "train"):
        lines = _lines(model, needs, rooms, "train", query.bits, card=query.card_gib)
        return Answer((_how_long(model), *(line for line in lines if line != _how_long(model))))
    return Answer(tuple(_lines(model, needs, rooms, query.work, query.bits, card=query.card_gib)))


def _a(model: NamedModel) -> str:
    """The model as it is spoken of: by its name, or as one of its size."""
    if not model.approximate:
        return model.name
    return f"an {model.name} model" if model.name.startswith(("8", "11", "18", "80")) else f"a {model.name} model"


def _disk(model: NamedModel, machine: Machine, bits: int = 0) -> list[str]:
    """What the files of a model take: its own, and those that a whole fine-tune makes beside them."""
    whole, free = 2 * model.parameters, machine.disk_free_bytes
    quantized = int(model.parameters * _BYTES_OF[4])
    total = 2 * whole + quantized
    name = _a(model)
    at_bits = [
        f"At {bits} bits the files of {name} take about {size(int(model.parameters * _BYTES_OF[bits]))}."
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


def _on_gpu(machine: Machine, vllm: str | None) -> bool:
    return bool(machine.gpus) and not serves_on_cpu(vllm)


def _rooms(machine: Machine, card_gib: float) -> dict[str, Room]:
    ram = machine.ram_free_bytes + machine.swap_free_bytes
    rooms = {"RAM": Room("this machine", machine.ram_total_bytes + machine.swap_free_bytes, ram)}
    if card_gib:
        rooms["VRAM"] = Room(f"a card of {card_gib:g} GB", int(card_gib * GIB), int(card_gib * GIB))
    elif machine.gpus:
        best = max(machine.gpus, key=lambda gpu: gpu.free_bytes)
        rooms["VRAM"] = Room(f"the {best.name}", best.total_bytes, best.free_bytes)
    return rooms


def needs_of(model: NamedModel, *, on_card: bool) -> list[Need]:
    """What every kind of work needs of a model."""
    config, memory, parameters = model.config, "VRAM" if on_card else "RAM", model.parameters
    needs = []
    for bits, rows in ((16, 1), (16, _BATCH), (4, 1), (4, _BATCH)):
        needed = train_memory_bytes(
            config, batch_size=rows, seq_len_tokens=_ROW_TOKENS, lora_rank=_RANK, load_in_4bit=bits == 4
        )
        needs.append(Need(_training(bits, rows), "train", bits, needed, memory))
    for bits, each in _BYTES_OF.items():
        served = server_memory(
            int(parameters * each),
            kv_bytes_per_token=kv_bytes_per_token(config),
            context_tokens=CONTEXT_TOKENS,
            sequences=SERVED_SEQUENCES,
        )
        needs.append(
            Need(f"serving at {bits} bits", "serve", bits, served.vram_bytes if on_card else served.ram_bytes, memory)
        )
    needs.append(Need("merging", "merge", 16, merge_memory_bytes(config), "RAM"))
    needs.append(Need("quantizing", "quantize", 16, quantize_memory_bytes(config, **_CALIBRATION), "RAM"))
    if on_card:
        needs.append(
            Need("quantizing", "quantize", 16, quantize_vram_bytes(config, batch_rows=8, seq_len_tokens=256), "VRAM")
        )
    return needs


def _training(bits: int, rows: int) -> str:
    kind = "QLoRA (4 bits)" if bits == 4 else "LoRA (16 bits)"
    at_once = f"{rows} rows" if rows > 1 else "1 row"
    return f"{kind}, {at_once} of {_ROW_TOKENS} tokens at once"


def _chosen(needs: Sequence[Need], work: str, bits: int) -> list[Need]:
    wanted = "serve" if work == "measure" else work
    of_work = [need for need in needs if need.work == wanted]
    return [need for need in of_work if bits in (0, need.bits) or wanted in ("merge", "quantize")] or of_work


_VERBS = {"train": "training", "serve": "serving", "measure": "measuring", "merge": "merging", "quantize": "quantizing"}


def _lines(
    model: NamedModel, needs: Sequence[Need], rooms: Mapping[str, Room], work: str, bits: int, *, card: float
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
    lines += [_how_long(model)] if work == "train" and not card and good else []
    if not good:
        lines.append(_instead(rooms, work, bits))
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
    return room is not None and need.bytes <= room.free_bytes


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
        "merge": "three fp32 copies of the largest matrix, or the model once more for its check",
        "quantize": "the 16-bit model, a copy of its quantized layers until the save, the Hessians, and the "
        "activations",
    }
    return f"The sum: {terms.get(work, 'weights and what works on them')}; {size}."


def _how_long(model: NamedModel) -> str:
    tokens = 600 * 95 * 3
    seconds = 18 + tokens * 6 * model.shape.active_parameters / _FLOPS_HERE
    return (
        f"On this machine 600 rows of 95 tokens and 3 epochs would take about "
        f"{duration(seconds)}, by the calibration of train."
    )


def _instead(rooms: Mapping[str, Room], work: str, bits: int) -> str:
    """The largest usual size that would do."""
    on_card = "VRAM" in rooms
    for model in reversed(usual_models()):
        chosen = _chosen(needs_of(model, on_card=on_card), work, bits)
        met = [_fits(need, rooms) for need in chosen]
        if all(met) if work == "quantize" else any(met):
            least = max if work == "quantize" else min
            need = least(chosen, key=lambda one: one.bytes)
            return f"The largest usual model that would go: {model.name} ({size(need.bytes)})."
    return "None of the usual sizes would go."


def _all_works(model: NamedModel, needs: Sequence[Need], rooms: Mapping[str, Room], bits: int) -> list[str]:
    name = f"{_a(model)[0].upper()}{_a(model)[1:]}" if model.approximate else model.name
    good: list[str] = []
    bad: list[str] = []
    lines: list[str] = []
    for work in ("train", "serve", "merge", "quantize"):
        chosen = _chosen(needs, work, bits)
        met = [_fits(need, rooms) for need in chosen]
        fits = all(met) if work == "quantize" else any(met)
        (good if fits else bad).append(_VERBS[work])
        shown = [need for need, ok in zip(chosen, met, strict=True) if ok] or chosen
        need = (
            max(shown, key=lambda one: one.bytes)
            if work == "quantize"
            else max(shown, key=lambda one: (one.bits, -one.bytes))
        )
        lines.append(
            f"  {_VERBS[work]}: {size(need.bytes)} of {need.memory} ({need.name}): {'fits' if fits else 'too much'}"
        )
    room = list(rooms.values())[-1]
    first = f"Yes, {name} fits for {listed(good)}" if good else f"No, {name} is too large here for {listed(bad)}"
    first += f", not for {listed(bad)}" if good and bad else ""
    return [f"{first}; {room.name} has {size(room.free_bytes)} free of {size(room.total_bytes)}.", *lines]


def _largest(machine: Machine, vllm: str | None, work: str, bits: int, card_gib: float) -> Answer:
    rooms = _rooms(machine, card_gib)
    on_card = bool(card_gib) or _on_gpu(machine, vllm)
    room = rooms.get("VRAM" if on_card else "RAM", rooms["RAM"])
    first = (
        f"{room.name[0].upper()}{room.name[1:]} has {size(room.free_bytes)} free of "
        f"{size(room.total_bytes)}; the largest usual sizes that fit:"
    )
    lines = [first]
    for one in [work] if work else ["train", "serve", "quantize"]:
        sizes = []
        for model in usual_models():
            chosen = _chosen(needs_of(model, on_card=on_card), one, bits)
            met = [_fits(need, rooms) for need in chosen]
            if all(met) if one == "quantize" else any(met):
                best = max((n for n, ok in zip(chosen, met, strict=True) if ok), key=lambda n: (n.bits, n.bytes))
                sizes.append(f"{model.name} ({best.name}: {size(best.bytes)})")
        lines.append(f"  {_VERBS[one]}: up to {sizes[-1]}" if sizes else f"  {_VERBS[one]}: none of the usual sizes")
    return Answer(tuple(lines))
