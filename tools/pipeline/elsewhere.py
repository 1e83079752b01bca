"""A step that is carried out on another machine: sent as a bundle, followed, and brought back.

Its worker here does no work. It sends what the step needs, hears how far it is, and records what came back; so price,
approval, progress, stop and resume are those of every step. An attempt that is under way or was carried out already is
taken up, never started a second time: a worker here may be killed at any line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.memory.bundles import Records, as_records, bring_back, records_for
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import MANIFEST, read_manifest, sha256_file, verify
from tunesmith.memory.json_values import as_float, as_int, as_list, as_object
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.core.job import PATIENCE_S, Job
from tunesmith.tools.core.local_paths import is_there as exists
from tunesmith.tools.core.stage import Request, Result
from tunesmith.tools.core.time_left import WAIT
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.guest import inside, versions
from tunesmith.tools.pipeline.ray_launcher import NotReached, RayLauncher, Reservation, connect
from tunesmith.tools.pipeline.ray_settings import RaySettings
from tunesmith.tools.pipeline.storage import Storage
from tunesmith.tools.pipeline.there import (
    There,
    attempt_name,
    attempts,
    check_place,
    guest_command,
    home_id,
    returned,
    seen,
    step_name,
    words,
)  # fmt: skip
from tunesmith.tools.serving.traffic import ContactLog, Traffic

_LOOK_S, _LOG_BYTES_S, _ENDS_S = 1.0, 200_000, 8.0
"""Ray sends the whole log at every look: the longer it is, the fewer looks; and a stopped step has so long to end."""
_BESIDE_BYTES = 64 << 20
"""A file that a request names and no step made goes along up to this size: a suite or rows do, weights do not."""
_WHOLE_MODELS = ("merged", "quantized")
"""Kinds that go only where a step works on them; of what they were made from their records suffice."""


def work(job: Job[Request], settings: RaySettings) -> Result:
    """Carry out a step there. Raises StepFailed with the reason, BadInput where it can never run there."""
    check_place(job.plan, settings)
    there = seen(job.home, settings)
    if catalog.ENTRIES[job.step.stage].only_looks:  # it was looked at for the price
        return catalog.ENTRIES[job.step.stage].load().result.model_validate(there.report)
    launcher = RayLauncher(connect(settings, job.home), there.place, _needs(job, there), step=step_name(job.step))
    return carried_out(job, settings, launcher, there)


def _needs(job: Job[Request], there: There) -> Reservation:
    """What no other program may have meanwhile: the card, else all cores; and the memory of the price."""
    price = job.plan.estimate
    card = 1.0 if price.peak_vram_bytes and there.machine.gpus else 0.0
    cpus = 1.0 if there.machine.gpus else float(there.machine.cores)
    return Reservation(cpus, card, price.peak_ram_bytes)


def carried_out(
    job: Job[Request], settings: RaySettings, launcher: RayLauncher, there: There, *, patience_s: float = PATIENCE_S
) -> Result:
    """Send the step, or take up an earlier attempt at it; follow it, and record what it made."""
    storage, traffic = Storage(settings.storage), Traffic()
    contact = ContactLog(job.home, settings.head(), "a step carried out there", job.run, job.step.id)
    contact.opened()
    try:
        earlier = attempts(job.home, job.step, launcher)
        name = _attempt_to_follow(job, storage, launcher, earlier, there.place)
        if name is None:
            order = _send(job, storage, there, traffic)
            name = attempt_name(job.home, job.step, len(earlier) + 1)  # Ray refuses a name that it has had
            launcher.start(name, guest_command(settings, "work", order))
        output = words(_followed(job, launcher, name, there.place, patience_s))
        answer = json.loads(storage.get_bytes(returned(output, there.place)))
        return _brought_back(job, storage, answer, name, traffic)
    finally:
        contact.closed(traffic)


# Sent


def _attempt_to_follow(
    job: Job[Request], storage: Storage, launcher: RayLauncher, earlier: Sequence[str], place: str
) -> str | None:
    """An attempt that goes on there, or whose result still lies on the storage; None where there is none."""
    for name in reversed(earlier):
        if launcher.alive(name) or _lies_whole(storage, words(launcher.log(name)).last.get("returned")):
            job.log(f"{name} was started on {place} before: it is taken up, not started again")
            return name
    return None


def _lies_whole(storage: Storage, answer: object) -> bool:
    """Whether all that an attempt sent back is still there."""
    try:
        files = json.loads(storage.get_bytes(str(answer)))["files"] if answer else None
    except StepFailed:
        return False
    return files is not None and all(storage.has(file["sha256"], file["bytes"]) for file in files)


def _send(job: Job[Request], storage: Storage, there: There, traffic: Traffic) -> str:
    """Put what the step needs on the storage, and return the digest of the order that lists it."""
    for name in job.inputs:
        job.verified(name)
    records, files = records_for(job.store, job.step), list[dict[str, object]]()
    paths = _needed_files(job, records)
    for number, (path, stored) in enumerate(paths, 1):
        job.progress(0, 0, f"sending {number} of {len(paths)} files to {there.place}", kind=WAIT)
        sha256, size_bytes = sha256_file(path), path.stat().st_size
        if storage.put(path, sha256):
            traffic.requests, traffic.sent_bytes = traffic.requests + 1, traffic.sent_bytes + size_bytes
        files.append({"path": stored, "sha256": sha256, "bytes": size_bytes})
    order = {
        "version": versions(),
        "home": home_id(job.home),
        "step": job.step.id,
        "plan_hash": job.step.plan_hash,
        "cards": [gpu.name for gpu in there.machine.gpus],
        "records": records,
        "files": files,
    }
    return storage.put_bytes(json.dumps(order).encode())


def _needed_files(job: Job[Request], records: Records) -> list[tuple[Path, str]]:
    """What the step reads: its inputs, what they were made from, its run's suites, and files that its request names.

    The records are changed where one of them lies elsewhere there.
    """
    by_id = {str(row["artifact"]): row for row in records["artifacts"]}
    wanted, open_ = set(by_id) & {a.id for a in job.inputs.values()}, [a.id for a in job.inputs.values()]
    while open_:
        for parent in json.loads(str(by_id[open_.pop()]["parents"])):
            if parent in by_id and parent not in wanted:
                open_.append(parent)
                wanted.add(parent)
    inputs = {a.id for a in job.inputs.values()}
    wanted = {name for name in wanted if name in inputs or by_id[name]["kind"] not in _WHOLE_MODELS}
    wanted |= {name for name, row in by_id.items() if row["kind"] == "suite" and row["run"] == job.run}
    places, files = job.store.places, dict[Path, str]()
    for name in sorted(wanted):
        files |= {path: places.stored(str(path)) for path in _files_of(places.path(str(by_id[name]["path"])))}
    moved = dict[str, str]()
    named = [json.loads(str(by_id[name]["meta"])).get("behaviour") for name in wanted]
    for text in {*_texts(job.request.model_dump(mode="json")), *filter(None, named)}:
        if text.startswith("/") and exists(text):  # a relative one would name another file in the worker's folder
            files |= _beside(job, Path(text), moved)
    _move(records, {places.stored(text): there for text, there in moved.items()})
    return sorted(files.items())


def _files_of(path: Path) -> Iterator[Path]:
    """An artifact's files; of a folder those that its manifest lists, and that."""
    if (manifest := read_manifest(path)) is not None:
        yield from (path / name for name in manifest["files"])
        yield path / MANIFEST
    elif path.is_file():
        yield path


def _beside(job: Job[Request], path: Path, moved: dict[str, str]) -> dict[Path, str]:
    """The files of a path that a request names, each with its place there; what lies outside the home is moved."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    if (total := sum(file.stat().st_size for file in files)) > _BESIDE_BYTES:
        raise BadInput(
            f"{job.step.stage} names {path} ({size(total)}), which no step made: up to {size(_BESIDE_BYTES)} of such "
            "files go to another machine; take it in with `tunesmith base` or `import`, or leave `on` out"
        )
    stored = job.store.places.stored(str(path))
    if stored == str(path):
        stored = moved[str(path)] = f"$TUNESMITH_HOME/sent/{len(moved)}/{path.name}"
    return {file: stored if file == path else f"{stored}/{file.relative_to(path)}" for file in files}


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _move(records: Records, moved: dict[str, str]) -> None:
    """Name in requests, plans and notes the places that files have there."""
    quoted = {json.dumps(before, ensure_ascii=False): json.dumps(after) for before, after in moved.items()}
    for table, columns in (("steps", ("request", "plan")), ("artifacts", ("meta",))):
        for row in records[table]:
            for column in columns:
                for before, after in quoted.items():
                    row[column] = str(row[column]).replace(before, after)


# Followed


@dataclass(slots=True)
class _Ear:
    """What was heard already, so that nothing is repeated."""

    job: Job[Request]
    lines: int = 0
    progress: object = None

    def hear(self, text: str) -> None:
        """Pass on what is new: lines of the log, and how far the step is."""
        output = words(text)
        for line in output.log[self.lines :]:
            print(line, file=sys.stderr, flush=True)
        self.lines = max(self.lines, len(output.log))
        now = as_list(output.last.get("progress") or [])
        if now and now != self.progress:
            self.progress = now
            done, total, note = as_float(now[0]), as_float(now[1]), str(now[2])
            # for a lock: a line of progress waits no longer
            self.job.best_effort(lambda: self.job.store.progress(self.job.step.id, done, total, note, wait_s=0.5))


def _followed(job: Job[Request], launcher: RayLauncher, name: str, place: str, patience_s: float) -> str:
    """All that an attempt said, once it has ended. One that is stopped here is stopped there."""
    ear, heard_at = _Ear(job), time.monotonic()
    try:
        while True:
            text = ""
            try:
                alive = launcher.alive(name)
                text = launcher.log(name)
                heard_at = time.monotonic()
            except NotReached as error:
                alive, silent_s = True, time.monotonic() - heard_at
                if silent_s > patience_s:
                    raise StepFailed(
                        f"{error}; it has been silent for {duration(silent_s)}, and the step may go on there: "
                        f"`tunesmith run --resume {job.run}` asks again and takes what it made"
                    ) from None
            ear.hear(text)
            if not alive:
                return text
            if ear.progress is None:
                job.progress(0, 0, f"waiting for {place} to begin", kind=WAIT)
            time.sleep(max(_LOOK_S, len(text) / _LOG_BYTES_S))
    except Exception:  # a fault of the looking: the step there goes on
        raise
    except BaseException:  # a stop
        _let_go(job, launcher, name)
        raise


def _let_go(job: Job[Request], launcher: RayLauncher, name: str) -> None:
    """Have it stopped there, and see it end for as long as who stops waits; what does not answer goes on."""
    deadline = time.monotonic() + _ENDS_S
    try:
        launcher.stop(name)
        while launcher.alive(name) and time.monotonic() < deadline:
            time.sleep(_LOOK_S / 4)  # it has little time, and the answer costs no log
    except StepFailed as error:
        job.log(f"it could not be stopped there: {error}")


# Brought back


def _brought_back(
    job: Job[Request], storage: Storage, answer: dict[str, object], submission: str, traffic: Traffic
) -> Result:
    """Put the step's files in its folder, its records in the store. Raises StepFailed before any is recorded."""
    files = [as_object(file) for file in as_list(answer["files"])]
    # manifests last: a folder with one counts as whole
    files.sort(key=lambda file: str(file["path"]).endswith(f"/{MANIFEST}"))
    for number, file in enumerate(files, 1):
        target = _own(job, str(file["path"]))
        job.progress(0, 0, f"fetching {number} of {len(files)} files", kind=WAIT)
        if not target.is_file() or sha256_file(target) != file["sha256"]:
            storage.get(str(file["sha256"]), target)
            traffic.requests += 1
            traffic.received_bytes += as_int(file["bytes"])
    records = as_records(answer["records"])
    for row in records.get("artifacts", []):
        _proven(_own(job, str(row["path"])), str(row["sha256"]))
    later_s = time.time() - as_float(answer["now"])
    result = job.patiently(lambda: bring_back(job.store, job.step, records, submission=submission, later_s=later_s))
    end = records["steps"][0]
    rss, vram = as_int(end["peak_rss_bytes"] or 0), end["peak_vram_bytes"]
    job.best_effort(lambda: job.store.peak(job.step.id, rss, None if vram is None else as_int(vram)))
    return catalog.ENTRIES[job.step.stage].load().result.model_validate(result)


def _own(job: Job[Request], stored: str) -> Path:
    """A path of the step's own folder. Raises StepFailed for any other."""
    path = inside(job.home, stored)
    if not path.is_relative_to(job.dir):
        raise StepFailed(f"{stored[:200]} came back and is no file of {job.step.id}; nothing was recorded")
    return path


def _proven(path: Path, sha256: str) -> None:
    if path.is_dir():
        verify(path, sha256)
    elif not path.is_file() or sha256_file(path) != sha256:
        raise StepFailed(f"{path} did not come back as it was made there; go on with the step to fetch it again")
