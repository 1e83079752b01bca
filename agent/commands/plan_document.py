"""A whole plan with its prices, as `teach --plan-only --json` prints it: what was decided, what each step needs and
lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunesmith.tools.core.estimate import Lack
from tunesmith.tools.core.machine import Machine, chosen_gpu
from tunesmith.tools.pipeline.forecast import Forecast
from tunesmith.tools.pipeline.plan_file import PipelinePlan


def plan_document(plan: PipelinePlan, prices: Sequence[Forecast], machine: Machine) -> dict[str, object]:
    """The documented shape; seconds and bytes are None where they show only when a step is due."""
    card = chosen_gpu(machine.gpus)
    vram = card.total_bytes if card else 0
    return {
        "name": plan.name,
        "machine": {
            "card": card.name if card else "", "cards": len(machine.gpus), "vram_bytes": vram,
            "ram_bytes": machine.ram_total_bytes,
        },
        "decisions": list(_decisions(plan, prices)),
        "steps": [_step(dict(spec.fields), price) for spec, price in zip(plan.steps_to_run, prices, strict=True)],
        "total_seconds": sum(price.estimate.seconds for price in prices if price.estimate),
    }  # fmt: skip


def _decisions(plan: PipelinePlan, prices: Sequence[Forecast]) -> Iterator[dict[str, object]]:
    """What nobody typed: the models, then of each step the settings that its plan has a reason for."""
    if plan.reasons:
        models = [spec.fields["model"] for spec in plan.steps if "model" in spec.fields]
        yield {"setting": "models", "value": models, "why": "; ".join(plan.reasons), "stage": "base"}
    for price in prices:
        for name, why in price.reasons.items():
            yield {"setting": name, "value": price.decided.get(name), "why": why, "stage": price.stage}


def _step(fields: dict[str, object], price: Forecast) -> dict[str, object]:
    needs = price.estimate
    return {
        "stage": price.stage,
        "fields": {**fields, **price.decided},
        "seconds": needs.seconds if needs else None,
        "vram_bytes": needs.peak_vram_bytes if needs else None,
        "cards": needs.cards if needs else None,
        "ram_bytes": needs.peak_ram_bytes if needs else None,
        "disk_bytes": needs.disk_bytes if needs else None,
        "lacks": [_lack(one) for one in price.lacks if isinstance(one, Lack)],
        "refusals": [str(one) for one in price.lacks],
        "held": list(price.held),
    }


def _lack(one: Lack) -> dict[str, object]:
    sizes = {"needed_bytes": one.needed_bytes, "free_bytes": one.free_bytes}
    return {"what": one.what, **sizes, "try": list(one.try_)}
