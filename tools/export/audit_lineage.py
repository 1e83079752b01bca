"""The audit as deploy's gate: of the model that is to be served, and of those on the way to it that never had one."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import as_list
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.lineage import Lineage
from tunesmith.tools.export.audit import Audit
from tunesmith.tools.export.audit_merged import audit_adapter, audit_merged
from tunesmith.tools.export.audit_quantized import audit_quantized
from tunesmith.tools.export.quantize import QuantizeRequest

_COMPARED_WITH = {"adapter": ("base",), "merged": ("base", "adapter"), "quantized": ("merged",)}
_MAKER = {"adapter": "train", "merged": "merge", "quantized": "quantize"}


def audit_refusals(store: Store, model: Artifact, arm: str) -> list[str]:
    """Why the saved bytes of an `arm`, or of what it was made from, forbid to serve it; empty: they do not.

    What is served is always audited anew where that from which it was made is still there, and where its format is
    known. Its bytes must have been verified: then an audit that its step recorded holds for them too.
    """
    models = Lineage.of(store, model, arm).models
    lines = []
    for name, artifact in models.items():
        recorded = Audit.of(store.step(artifact.step))
        if name not in _COMPARED_WITH or (name != arm and (recorded or name == "adapter")):
            continue
        if name == "quantized" and recorded and _is_of_the_past(store, artifact):
            continue
        if gone := [kind for kind in _COMPARED_WITH[name] if kind not in models or not models[kind].path.exists()]:
            if recorded is None:
                lines.append(
                    f"the {name} {artifact.id} was never audited, and the {gone[0]} that it was made from is gone; "
                    f"make it again with `tunesmith {_MAKER[name]}`"
                )
            continue
        try:
            lines.append(audit_arm(store, name, models).refusal)
        except (BadInput, OSError) as error:  # what cannot be audited counts as a fault, for the rest is said too
            lines.append(f"the {name} {artifact.id} cannot be audited: {error}")
    return [line for line in lines if line]


def _is_of_the_past(store: Store, quantized: Artifact) -> bool:
    """Whether an earlier version made it in a way or a format that is gone: its own audit is what there is."""
    try:
        QuantizeRequest.of("quantize", store.step(quantized.step).request)
    except BadInput:
        return True
    return False


def audit_arm(store: Store, arm: str, models: Mapping[str, Artifact]) -> Audit:
    """Audit one arm of a lineage against those that it was made from. Raises BadInput where one is not readable."""
    model = models[arm]
    if arm == "adapter":
        return audit_adapter(model.path, models["base"].path, against=models["base"].id)
    if arm == "merged":
        return audit_merged(model.path, models["base"].path, models["adapter"].path, against=models["base"].id)
    asked = store.step(model.step).request
    keep, rounding = tuple(map(str, as_list(asked.get("keep") or []))), str(asked.get("rounding", "gptq"))
    group = None if model.meta.get("group_size") is None else model.count("group_size")
    merged = models["merged"]
    return audit_quantized(model.path, merged.path, keep, group_size=group, against=merged.id, rounding=rounding)
