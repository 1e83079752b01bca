"""base at work: the pristine copy and, where the run is measured at 4 bits, the quantized base beside it.

Here rather than beside its declaration, because what is made of a model's weights is made and audited in this room.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tunesmith.memory.digests import Digests
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import publish_folder, read_manifest, verify, write_protect
from tunesmith.tools.core.job import Job
from tunesmith.tools.export.audit import Audit
from tunesmith.tools.export.audit_quantized import audit_quantized
from tunesmith.tools.export.round_to_nearest import round_base
from tunesmith.tools.models.base import BaseRequest, BaseResult
from tunesmith.tools.models.base_job import Pristine, fetch, record, set_aside_if_damaged
from tunesmith.tools.models.full_precision import assert_full_precision, full_precision_layers
from tunesmith.tools.models.measuring import FOUR, QUANTIZED_BASE, SCHEME
from tunesmith.tools.models.memory_math import group_size_for


def run(job: Job[BaseRequest]) -> BaseResult:
    """Fetch the model and, where it is measured at 4 bits, make its quantized base; record both, the quantized
    base as made from the base.

    Nothing is on the record before both are whole. Raises StepFailed where the quantized base fails its audit.
    """
    pristine = fetch(job)
    beside = _beside(job, pristine) if job.request.role == "base" and job.request.measuring == FOUR else None
    artifact = record(job, pristine)
    result = BaseResult(
        artifact=artifact.id,
        path=str(pristine.path),
        name=pristine.name,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        parameters=pristine.folder.parameters,
        architecture=pristine.folder.architecture,
        measured_at=str(artifact.meta.get("measured_at", "")),
        measured_because=job.plan.reasons.get("measuring", ""),
        damaged_copy=str(pristine.aside) if pristine.aside else "",
    )
    if beside is None:
        return result
    meta = {**artifact.meta, "scheme": SCHEME, "group_size": beside.group_size, "base_sha256": artifact.sha256}
    quantized = job.publish(QUANTIZED_BASE, beside.path, parents=[artifact.id], meta=meta)
    return result.model_copy(
        update={
            "quantized_base": quantized.id,
            "quantized_bytes": quantized.bytes,
            "quantized_audit": beside.audit,
        }
    )


class _Beside(NamedTuple):
    """The quantized base as it stands below models/."""

    path: Path
    group_size: int
    """Weights that share a scale; 0: those of an output channel."""
    audit: str


def _beside(job: Job[BaseRequest], pristine: Pristine) -> _Beside:
    """Named by what it was made from; one that is there and whole is used again."""
    group = group_size_for(pristine.folder.config)
    name = f"{pristine.path.name}-{pristine.sha256[:12]}-{SCHEME}-g{group}"
    target = pristine.path.with_name(name)
    damage, aside = set_aside_if_damaged(target, Digests(job.home))
    if aside:
        job.log(f"{damage}: it was set aside as {aside}, and the quantized base is made again")
    if read_manifest(target) is not None:
        audit = "audited when it was made; its bytes are those of then"
    else:
        audit = _rounded(job, pristine, target, group)
    return _Beside(target, group, audit)


def _rounded(job: Job[BaseRequest], pristine: Pristine, target: Path, group: int) -> str:
    def fill(folder: Path) -> Audit:
        round_base(pristine.path, folder, job.progress)
        assert_full_precision(folder, full_precision_layers(pristine.folder.config))
        job.progress(0, 1, "auditing the quantized base")
        audit = audit_quantized(folder, pristine.path, (), group_size=group, against=pristine.name)
        job.log(audit.summary)
        if audit.refusal:
            raise StepFailed(f"{audit.refusal}; nothing of it was kept: measure with measuring=16")
        return audit

    return _sealed(target, fill, kind=QUANTIZED_BASE, source=job.request.model)


def _sealed(target: Path, fill: Callable[[Path], Audit], **notes: object) -> str:
    """Audited before it is sealed: what fails is removed, and a copy with a manifest has passed."""
    audits: list[Audit] = []
    manifest = publish_folder(target, lambda folder: audits.append(fill(folder)), **notes)
    write_protect(target)
    verify(target, manifest["sha256"])
    return audits[0].summary
