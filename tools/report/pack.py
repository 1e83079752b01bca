"""A run as one archive: its records, its suites and results, and the comparisons that were made of them.

Weights stay where they are: the archive has their digests. What `verify` checks of it is in `verify_pack`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from tunesmith.memory.bundles import records_of_run
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import Artifact
from tunesmith.memory.step_records import RECORD
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.compare import compare_with_hops
from tunesmith.tools.evaluation.pairing import Evaluations, each_pair_once
from tunesmith.tools.evaluation.verdict import RULE

FORMAT = 1
"""Version of the archive's form."""
INDEX, RECORDS, CLAIMS = "pack.json", "records.json", "claims.json"
PACKED_KINDS = ("suite", "results")
"""Artifacts that go whole: what regrading and comparing read."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Of every member, so that the same run gives the same archive."""
Json = dict[str, object]


def claims_of(store: Store, run: str) -> dict[str, Mapping[str, object]]:
    """The comparison of the base with each arm that was evaluated, as `compare --json` prints it; arm → document.

    One that cannot be made is its reason: `{"refused": …}`.
    """
    claims: dict[str, Mapping[str, object]] = {}
    with each_pair_once():
        for arm in Evaluations.of(store, run).arms:
            if arm == "base":
                continue
            try:
                claims[arm] = compare_with_hops(store, run, "base", arm).to_json()
            except (NotFound, BadInput) as error:
                claims[arm] = {"refused": str(error)}
    return claims


def pack(store: Store, run: str, path: Path, version: str) -> Json:
    """Write the archive of a run to `path`, whole or not at all; its index. Raises BadInput for a run without answers.

    `version` is tunesmith's own.
    """
    claims = claims_of(store, run)
    if not claims:
        raise BadInput(f"{run} has no evaluated arm to pack; `tunesmith evaluate --run {run}` makes one")
    members = {RECORDS: _json(records_of_run(store, run)), CLAIMS: _json(claims), **dict(_files(store, run))}
    index: Json = {
        "format": FORMAT, "tunesmith": version, "rule": RULE, "run": run, "name": store.run(run).name,
        "arms": list(claims), "members": {name: sha256(data).hexdigest() for name, data in members.items()},
        "weights": {
            one.kind: {"sha256": one.sha256, "bytes": one.bytes}
            for one in store.artifacts(run) if one.kind in ("base", "adapter", "merged", "quantized")
        },
    }  # fmt: skip
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {INDEX: _json(index), **members}.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    atomic_write(path, buffer.getvalue())
    return index


def _files(store: Store, run: str) -> Iterator[tuple[str, bytes]]:
    """Place in the home → bytes: what each step left of its records, and the artifacts that go whole.

    Raises BadInput for an artifact that changed since it was made, or is gone.
    """
    runs = store.home / "runs"
    for artifact in store.artifacts(run):
        if artifact.kind in PACKED_KINDS:
            yield artifact.path.relative_to(store.home).as_posix(), _unchanged(artifact)
    for step in store.steps(run):
        if (record := runs / run / step.id / RECORD).is_file():
            yield record.relative_to(store.home).as_posix(), record.read_bytes()


def _unchanged(artifact: Artifact) -> bytes:
    try:
        data = artifact.path.read_bytes()
    except OSError as error:
        raise BadInput(f"{artifact.path} cannot be read ({error.strerror}); put it back, then pack again") from None
    if sha256(data).hexdigest() != artifact.sha256:
        raise BadInput(f"{artifact.path} changed since {artifact.step} made it, so {artifact.run} is not packed")
    return data


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()
