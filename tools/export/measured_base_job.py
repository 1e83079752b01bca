"""base at work: the pristine copy and, where the run is measured at 4 bits, the quantized base beside it.

Here rather than beside its declaration, because what is made of a model's weights is made and audited in this room.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import publish_folder, read_manifest, set_aside, verify, write_protect
from tunesmith.tools.core.job import Job
from tunesmith.tools.export.audit_quantized import audit_quantized
from tunesmith.tools.export.round_to_nearest import round_base
from tunesmith.tools.models.base import BaseRequest, BaseResult
from tunesmith.tools.models.base_job import Pristine, fetch, record, set_aside_if_damaged
from tunesmith.tools.models.full_precision import assert_full_precision, kept_layers
from tunesmith.tools.models.measuring import FOUR, QUANTIZED_BASE, SCHEME
from tunesmith.tools.models.memory_math import group_size_for


def run(job: Job[BaseRequest]) -> BaseResult:
    """Fetch the model; round a base that is measured at 4 bits; record both, the quantized base as made from the base.

    Nothing is on the record before both are whole. Raises StepFailed where the quantized base fails its audit.
    """
    made = fetch(job)
    rounded = _rounded(job, made) if job.request.role == "base" and job.request.measuring == FOUR else None
    artifact = record(job, made)
    result = BaseResult(
        artifact=artifact.id,
        path=str(made.path),
        name=made.name,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        parameters=made.folder.parameters,
        architecture=made.folder.architecture,
        measured_at=str(artifact.meta.get("measured_at", "")),
        measured_because=job.plan.reasons.get("measuring", ""),
        damaged_copy=str(made.aside) if made.aside else "",
    )
    if rounded is None:
        return result
    meta = {**artifact.meta, "scheme": SCHEME, "group_size": rounded.group_size, "base_sha256": artifact.sha256}
    quantized = job.publish(QUANTIZED_BASE, rounded.path, parents=[artifact.id], meta=meta)
    told = {"quantized_base": quantized.id, "quantized_bytes": quantized.bytes, "quantized_audit": rounded.audit}
    return result.model_copy(update=told)


class _Rounded(NamedTuple):
    path: Path
    group_size: int
    audit: str


def _rounded(job: Job[BaseRequest], made: Pristine) -> _Rounded:
    """The quantized base below models/, named by what it was made from; one that is there and whole is used again."""
    group = group_size_for(made.folder.config)
    target = made.path.with_name(f"{made.path.name}-{made.sha256[:12]}-{SCHEME}-g{group}")
    damage, aside = set_aside_if_damaged(target)
    if aside:
        job.log(f"{damage}: it was set aside as {aside}, and the base is rounded again")
    if read_manifest(target) is not None:
        return _Rounded(target, group, "audited when it was made; its bytes are those of then")
    manifest = publish_folder(
        target, lambda folder: _fill(job, made, folder), kind=QUANTIZED_BASE, source=job.request.model
    )
    write_protect(target)
    verify(target, manifest["sha256"])
    job.progress(0, 1, "auditing the quantized base")
    audit = audit_quantized(target, made.path, (), group_size=group, against=made.name)
    job.log(audit.summary)
    if audit.refusal:
        raise StepFailed(f"{audit.refusal}; it was set aside as {set_aside(target)}; measure with measuring=16")
    return _Rounded(target, group, audit.summary)


def _fill(job: Job[BaseRequest], made: Pristine, folder: Path) -> None:
    round_base(made.path, folder, job.progress)
    assert_full_precision(folder, kept_layers(made.folder.config))
