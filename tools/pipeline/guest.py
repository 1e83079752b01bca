"""The other end of a step that is carried out elsewhere: `python -m tunesmith.tools.pipeline.guest` on that machine.

It makes a home for the one step, from records and files that came by the storage; the usual worker claims the step
there, with the yes that came along, and works. What it made goes back the same way. Its words to whoever started it are
lines of its output that begin with MARK; all other lines are the step's log.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from tunesmith.memory.bundles import as_records, new_records, put_down
from tunesmith.memory.errors import StepFailed, TunesmithError
from tunesmith.memory.files import sha256_file
from tunesmith.memory.json_values import as_list, as_object
from tunesmith.memory.locks import Locked, lock_file, locked
from tunesmith.memory.migrations import LATEST
from tunesmith.memory.places import Places
from tunesmith.memory.privacy import keep_private
from tunesmith.memory.records import DONE, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.disk import MOVE_HOME, concerns_disk, trouble
from tunesmith.tools.machine.measure import measure_gpus, measure_machine
from tunesmith.tools.machine.probe import measured_rates
from tunesmith.tools.machine.vllm_program import find_vllm
from tunesmith.tools.pipeline import catalog, inspect_job, launcher, planning_facts
from tunesmith.tools.pipeline.storage import Storage
from tunesmith.tools.serving import servers

MARK = "@tunesmith "
_LOOK_S = 0.5
"""Of a worker's log and progress; Ray hands a line on within a second or two anyway."""
_SMALL_BYTES = 8 << 20
"""Of a step's folder all artifacts go back, and of what lies beside them files up to this size: records and logs are
that small, weights that a step left aside are not."""
_RATES = "rates.json"
_MOVE_FOLDER = "name a `folder` on another disk there under [ray] in settings.toml"


def main() -> int:
    """Do what was ordered, and say how it ended; the exit code of the process."""
    parser = argparse.ArgumentParser(prog="tunesmith-guest")
    parser.add_argument("what", choices=("inspect", "work"))
    parser.add_argument("--storage", required=True)
    parser.add_argument("--order", required=True)
    parser.add_argument("--folder", required=True)
    args = parser.parse_args()
    keep_private()
    folder = Path(args.folder).expanduser()
    try:
        storage = Storage(args.storage)
        order = json.loads(storage.get_bytes(args.order))
        _refuse_other_version(order["version"])
        answer = _inspected(folder) if args.what == "inspect" else _worked(folder, storage, order)
        answer |= {"version": versions(), "now": time.time()}
        say({"returned": storage.put_bytes(json.dumps(answer).encode())})
        # Only now: the answer, and what it names, is on the storage.
        if args.what == "work":
            shutil.rmtree(_home(folder, order))
    except TunesmithError as error:
        say({"failed": str(error).replace(MOVE_HOME, _MOVE_FOLDER)})
        return 1
    # a full disk there, or its store: told in a line, as the other side sees no traceback
    except (OSError, sqlite3.Error) as error:
        disk = trouble(folder, error) if concerns_disk(error) else ""
        say({"failed": disk.replace(MOVE_HOME, _MOVE_FOLDER) or f"{type(error).__name__}: {error}"})
        return 1
    return 0


def say(word: Mapping[str, object]) -> None:
    """A word to whoever started this."""
    print(MARK + json.dumps(word), flush=True)


def versions() -> str:
    """What two machines must have alike."""
    return f"tunesmith {version('tunesmith')}, schema {LATEST}"


def _refuse_other_version(theirs: str) -> None:
    if theirs != versions():
        raise StepFailed(f"{versions()} is installed there, and {theirs} here; install the same on both")


def _inspected(folder: Path) -> dict[str, object]:
    """What this machine has, for a price."""
    vllm = find_vllm(None)
    return {
        "machine": asdict(measure_machine(folder)),
        "vllm": vllm,
        "cpu_builds": sorted(planning_facts.cpu_builds(vllm)),
        "rates": {device: asdict(rates) for device, rates in measured_rates(folder).items()},
        "report": inspect_job.measured(folder, vllm).model_dump(mode="json"),
    }


def _home(folder: Path, order: Mapping[str, object]) -> Path:
    return folder / "homes" / str(order["home"]) / str(order["step"])


def _worked(folder: Path, storage: Storage, order: Mapping[str, object]) -> dict[str, object]:
    """Carry out a step in a home of its own; what it made. Raises StepFailed with the step's own reason."""
    step_id, records_before = str(order["step"]), as_records(order["records"])
    home, cards = _home(folder, order), {gpu.name for gpu in measure_gpus()}
    if gone := sorted({str(card) for card in as_list(order["cards"])} - cards):
        raise StepFailed(f"{gone[0]}, which the step was priced for, is no longer there; price it again")
    try:
        with locked(lock_file(home, "guest"), holder=f"pid {os.getpid()}"):
            _fetch(folder, home, storage, map(as_object, as_list(order["files"])))
            with contextlib.suppress(FileNotFoundError):  # nothing was measured here yet
                shutil.copyfile(folder / _RATES, home / _RATES)
            store = Store(home)
            launcher.reconcile(store)
            put_down(store, step_id, records_before)
            try:
                _work(store, store.step(step_id))
            finally:
                servers.stop_all(home)
                with contextlib.suppress(FileNotFoundError):  # rates are of the machine: the next home has them
                    (home / _RATES).replace(folder / _RATES)
            step = store.step(step_id)
            log = launcher.log_path(store, step)
            if step.status != DONE:
                raise StepFailed(step.error or f"its worker did not start: {launcher.last_line(log)}")
            records = new_records(store, step, records_before)
            files = _sent(home, step, records["artifacts"], store.places, storage)
            return {"records": records, "files": files}
    except Locked as error:
        raise StepFailed(f"an earlier attempt of {step_id} is still at work there: {error}") from None


def _fetch(folder: Path, home: Path, storage: Storage, files: Iterable[Mapping[str, object]]) -> None:
    """Put the files of an order where its records say; those that came for an earlier one are there already."""
    for file in files:
        target, cached = inside(home, str(file["path"])), folder / "blobs" / str(file["sha256"])
        if target.exists():
            if target.stat().st_size == file["bytes"]:  # what it holds its worker proves
                continue
            target.unlink()
        if not cached.exists() or cached.stat().st_size != file["bytes"]:
            storage.get(str(file["sha256"]), cached)
            cached.chmod(0o400)  # every home that has a link to it would see a change
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(cached)
        except OSError:  # a file system without hard links
            shutil.copyfile(cached, target)


def inside(home: Path, stored: str) -> Path:
    """The path that a document from elsewhere names. Raises StepFailed where it does not lie in the home."""
    path = Places(home).path(stored)
    if not path.is_relative_to(home) or ".." in path.parts:
        raise StepFailed(f"{stored[:200]} does not lie in the step's home; nothing was written there")
    return path


def _work(store: Store, step: Step) -> None:
    """Run the step's worker to its end; its log goes on to our own, and so does how far it is."""
    log = launcher.log_path(store, step)
    log.parent.mkdir(parents=True, exist_ok=True)
    stage, vllm = catalog.ENTRIES[step.stage].load(), find_vllm(None)
    env = launcher.worker_environment(stage, step.request, measure_machine(store.home).gpus)
    argv = launcher.worker_command(store.home, step.id, env, vllm)
    # What an earlier attempt wrote was told by it.
    at = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        worker = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=log.parent)
    # Ray stops this process: the worker records its end, and this one brings it back.
    signal.signal(signal.SIGTERM, lambda signum, frame: worker.terminate())
    tell = _telling(store, step.id)
    # Once more after its end: its last words may have come since the log was read.
    while (ended := worker.poll() is not None) or True:
        with log.open("rb") as text:
            text.seek(at)
            at += sys.stdout.buffer.write(text.read())
            sys.stdout.flush()
        tell()
        if ended:
            break
        time.sleep(_LOOK_S)  # its progress is told in between
    launcher.reconcile(store)


def _telling(store: Store, step: str) -> Callable[[], None]:
    """Says how far a step is, whenever that is another word than the last."""
    before: list[object] = []

    def tell() -> None:
        now = store.step(step)
        word: list[object] = [now.done, now.total, now.note]
        if now.note and word != before:
            before[:] = word  # in place: `tell` shares it
            say({"progress": word})

    return tell


def _sent(
    home: Path, step: Step, artifacts: Iterable[Mapping[str, object]], places: Places, storage: Storage
) -> list[dict[str, object]]:
    """Send what the step made, and list it: path in the home, digest, size."""
    folder = home / "runs" / step.run / step.id
    published = [places.path(str(row["path"])) for row in artifacts]
    files = []
    for path in sorted(folder.rglob("*")):
        of_artifact = any(path == one or path.is_relative_to(one) for one in published)
        if path.is_symlink() or not path.is_file() or path.name == "worker.log":
            continue
        if of_artifact or path.stat().st_size <= _SMALL_BYTES:
            storage.put(path, sha256 := sha256_file(path))
            files.append({"path": places.stored(str(path)), "sha256": sha256, "bytes": path.stat().st_size})
    return files


if __name__ == "__main__":
    sys.exit(main())
