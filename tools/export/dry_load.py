"""Dry load: whether the vLLM of this machine serves an architecture at a scheme, asked before an hour is spent on it.

A tiny model of the architecture, with random weights, is quantized with the same settings and loaded. What came of it
is kept in the home, by architecture, settings, vLLM and device, so that it is paid for once. It is an insurance, so it
is taken out only where what it insures is worth several times its price, or where a refusal is likely: of floats on a
CPU.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from tunesmith.memory.files import atomic_write
from tunesmith.memory.json_values import as_list
from tunesmith.tools.core.format import duration
from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.core.rates import START
from tunesmith.tools.core.stage import Facts, Frozen, Plan
from tunesmith.tools.machine.vllm_program import engine_beside
from tunesmith.tools.models.memory_math import server_memory, serving_peaks
from tunesmith.tools.models.schemes import SCHEMES
from tunesmith.tools.models.shape import EXPERT_COUNTS, ModelShape
from tunesmith.tools.models.time_math import CARD_SERVER_START_S, SERVER_START_S

_FOLDER = "dry-loads"
_TRIAL_S = 14.0
"""To make the tiny model and quantize it on two cores, without its server."""
PAYS_FROM_TIMES = 5
"""Where quantizing takes no more than so many dry loads, failing late costs less than asking first each time."""
_TINY_BYTES = 200 << 20
"""About: most of it is the embedding, whose vocabulary stays."""
TINY_KV_BYTES = 4096
"""A token's keys and values, about: two layers of 4 key heads, 128 wide, in bf16."""
_WIDTH = 512
"""Of what is inside a layer: every group size that is used divides it."""


class DryLoadKey(Frozen):
    """What a dry load tells of."""

    architecture: str
    scheme: str
    group_size: int
    keep: tuple[str, ...]
    program: str
    """The vllm program."""
    engine: str
    """vLLM's version, and the kernels beside it."""
    device: str
    """`cpu`, or the card's name."""

    @property
    def sha256(self) -> str:
        """Of all of it."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


class DryLoad(Frozen):
    """What came of one."""

    key: DryLoadKey
    served: bool
    refusal: str = ""
    """vLLM's own words."""
    by_transformers: bool = False
    """Whether transformers loads and runs what vLLM refused."""
    seconds: float = 0.0

    @property
    def why_not(self) -> str:
        """What to tell where it is not served: the words of the refusal, and what to try; else empty."""
        if self.served:
            return ""
        other = "transformers loads and runs it, slowly; " if self.by_transformers else ""
        return (
            f"a tiny {self.key.architecture} at {self.key.scheme} was quantized and {self.key.engine or 'vLLM'} on "
            f"{self.key.device} does not load it: {self.refusal}; {other}try another scheme, or dry_load=off to "
            "quantize for another machine"
        )


def dry_load_key(
    config: Mapping[str, object], scheme: str, group: int, keep: Sequence[str], *, program: str, device: str
) -> DryLoadKey:
    """What a dry load of these settings would tell of, with the engine that lies beside the program now."""
    return DryLoadKey(
        architecture=_architecture(config),
        scheme=scheme,
        group_size=group,
        keep=tuple(keep),
        program=program,
        engine=engine_beside(program),
        device=device,
    )


def _architecture(config: Mapping[str, object]) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else str(config.get("model_type", "unknown"))


def known_dry_loads(home: Path) -> tuple[DryLoad, ...]:
    """Those whose vLLM is still the one that was asked."""
    current = []
    for file in sorted((home / _FOLDER).glob("*.json")):
        try:
            one = DryLoad.model_validate_json(file.read_text())
        except (OSError, ValidationError):  # of another version: it is tried again
            continue
        if engine_beside(one.key.program) == one.key.engine:
            current.append(one)
    return tuple(current)


def keep_dry_load(home: Path, one: DryLoad) -> None:
    """For the plans to come."""
    atomic_write(home / _FOLDER / f"{one.key.sha256[:16]}.json", one.model_dump_json(indent=1))


def device_of(facts: Facts) -> str:
    """Where vLLM computes here."""
    card = chosen_gpu(facts.machine.gpus) if facts.serves_on_gpu else None
    return card.name if card else "cpu"


def dry_load_seconds(*, on_card: bool) -> float:
    """Of a whole one."""
    return _TRIAL_S + (CARD_SERVER_START_S if on_card else SERVER_START_S)


def with_dry_load(plan: Plan, facts: Facts, config: Mapping[str, object], group: int, known: Sequence[DryLoad]) -> Plan:
    """A plan of quantizing that asks vLLM first where that pays, or is refused by what vLLM said before."""
    asked = str(plan.request["dry_load"])
    if asked == "off":
        return plan
    scheme, keep = str(plan.request["scheme"]), tuple(map(str, as_list(plan.request["keep"])))
    asks = {"architecture": _architecture(config), "scheme": scheme, "group_size": group, "keep": keep}
    asks |= {"program": facts.vllm, "device": device_of(facts)}
    mine = [one for one in known if one.key == one.key.model_copy(update=asks)]
    if mine:
        refused = (mine[-1].why_not,) if mine[-1].why_not else ()
        why = "vLLM loaded a tiny model of this kind here before" if not refused else "vLLM refused it here before"
        return _decided(plan, "off", why).model_copy(update={"refusals": (*refused, *plan.refusals)})
    seconds, quantizing_s = dry_load_seconds(on_card=facts.serves_on_gpu), plan.estimate.seconds
    peaks = serving_peaks(server_memory(_TINY_BYTES, kv_bytes_per_token=TINY_KV_BYTES), on_gpu=facts.serves_on_gpu)
    if facts.vllm is None:
        return _decided(plan, "off", "there is no vLLM here to ask")
    doubtful = SCHEMES[scheme].floats and not facts.serves_on_gpu
    if asked == "auto" and quantizing_s <= PAYS_FROM_TIMES * seconds and not doubtful:
        why = (
            f"quantizing takes {duration(quantizing_s)}, a dry load {duration(seconds)}: "
            f"it pays from {PAYS_FROM_TIMES} times on"
        )
        return _decided(plan, "off", why)
    if peaks["ram_bytes"] > facts.machine.memory_room_bytes or peaks["vram_bytes"] > facts.machine.vram_room_on(1):
        return _decided(plan, "off", "there is no room here for a server of even a tiny model")
    price = plan.estimate.model_copy(
        update={
            "seconds": round(quantizing_s + seconds, 1),
            "calibrated_seconds": round(plan.estimate.calibrated_seconds + seconds, 1),
            "fixed_seconds": round(plan.estimate.fixed_seconds + seconds, 1),
            **{name: round(getattr(plan.estimate, name) + seconds, 1) for name in ("least_seconds", "most_seconds")},
            **{name: _with_start(getattr(plan.estimate, name), seconds) for name in ("parts", "work")},
            "peak_ram_bytes": max(plan.estimate.peak_ram_bytes, peaks["ram_bytes"]),
            "peak_vram_bytes": max(plan.estimate.peak_vram_bytes, peaks["vram_bytes"]),
        }
    )
    first = "quantize a tiny model of this architecture in the same way, and have vLLM load it: a refusal ends the step"
    why = f"{duration(seconds)} before {duration(quantizing_s)} are spent"
    asking = _decided(plan, "on", f"on a CPU vLLM serves few formats of floats: {why}" if doubtful else why)
    return asking.model_copy(update={"estimate": price, "steps": (first, *plan.steps)})


def _with_start(seconds_by_part: Mapping[str, float], seconds: float) -> dict[str, float]:
    return {START: 0.0, **seconds_by_part} | {START: round(seconds_by_part.get(START, 0.0) + seconds, 2)}


def _decided(plan: Plan, how: str, why: str) -> Plan:
    return plan.model_copy(
        update={"request": {**plan.request, "dry_load": how}, "reasons": {**plan.reasons, "dry_load": why}}
    )


def tiny_config(config: Mapping[str, object], group: int) -> dict[str, object]:
    """The same architecture with small widths, few experts and a layer of each kind; the vocabulary stays.

    Every width is a multiple of `group`, as the real ones are; a head keeps its size, which kernels depend on.
    """
    text = config.get("text_config")
    if isinstance(text, Mapping):
        return {**config, "text_config": tiny_config(text, group)}
    shape = ModelShape.of(config)
    unit, several = max(group, 1), shape.kv_heads not in (1, shape.heads)
    # The fewest heads whose width groups divide; where heads share keys, half of it too.
    fitting = [n for n in (4, 8, 16, 32) if n * shape.head_dim % unit == 0]
    heads = next((n for n in fitting if not several or n // 2 * shape.head_dim % unit == 0), (*fitting, 4)[0])
    kv_heads = heads // 2 if several else heads if shape.kv_heads == shape.heads else 1
    tiny: dict[str, object] = {
        **config,
        "hidden_size": heads * shape.head_dim,
        "intermediate_size": _WIDTH,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        **_layers(config),
    }
    small = dict.fromkeys(EXPERT_COUNTS, 4) | {  # four experts, two at a time: a choice to make, and little to write
        "moe_intermediate_size": _WIDTH,
        "shared_expert_intermediate_size": _WIDTH,
    }
    small |= {"num_experts_per_tok": min(2, shape.experts_per_token)} if shape.experts else {}
    return tiny | {name: value for name, value in small.items() if config.get(name)}


def _layers(config: Mapping[str, object]) -> dict[str, object]:
    """Two layers, or as many as there are kinds of them."""
    kinds = config.get("layer_types")
    several = list(dict.fromkeys(kinds)) if isinstance(kinds, list) else []
    count = max(2, len(several))
    layers: dict[str, object] = {"num_hidden_layers": count}
    if several:
        layers["layer_types"] = (several * count)[:count]
    if config.get("mlp_only_layers"):
        layers["mlp_only_layers"] = [0]
    if config.get("first_k_dense_replace"):
        layers["first_k_dense_replace"] = 1
    if isinstance(window := config.get("max_window_layers"), int):
        layers["max_window_layers"] = min(window, count)
    return layers
