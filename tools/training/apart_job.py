"""A training in processes of its own: with them goes all that it held, the CUDA context of a card too.

The parent calls `train_apart` as it would `train_lora`. For one card the child trains itself. For several it runs
`accelerate launch`, which starts a process a card (a rank) and ends them all where one of them dies. Each reads what is
asked from a file, and writes lines of JSON to the child's standard output: rank 0 what it calls back with and what it
trained, every one why it failed, and the launcher which rank died of what. What else is printed goes to the log.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.memory.json_values import as_int, as_list, as_record
from tunesmith.tools.machine.gpus import measure_gpus, pinning, trains_on_cpu
from tunesmith.tools.machine.processes import python_module, tree, with_environment
from tunesmith.tools.machine.torch_env import TORCH_ENV
from tunesmith.tools.training.trained import OutOfMemory, ToTrain, Trained

_RANKS_ENV: dict[str, str] = {
    "PYTHONSAFEPATH": "1",  # torch starts ranks without -P
    # The ranks of one machine find each other on the loopback address; by default on the one that its name has.
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
_ASKED = "training.json"
DIED = "died"
"""Of a rank and its exit code, by the launcher."""
MEMORY = "memory"
"""Like `failed`: memory ran out."""
_CHILD = "tunesmith.tools.training.rank_job"


def train_apart(asked: ToTrain, watch: Callable[[int], object] = lambda pid: None) -> Trained:
    """`train_lora` in a child, on as many cards as the settings say, in the environment of a training.

    `watch` is given the child's pid. Raises StepFailed as that does, or where a process of it dies, by its name.
    """
    values = {field.name: getattr(asked, field.name) for field in fields(asked)}
    paths = {name: str(value) for name, value in values.items() if isinstance(value, Path)}
    request, cards = asked.out_dir.parent / _ASKED, asked.settings.cards
    atomic_write(request, json.dumps({**paths, "settings": asdict(asked.settings)}))
    child = subprocess.Popen(
        with_environment(_environment(cards), python_module(_CHILD, str(cards), str(request))),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",  # libraries print what is no UTF-8, too
        cwd=asked.rows_path.parent,
    )
    watch(child.pid)
    ended: dict[str, list[object]] = {}
    try:
        assert child.stdout is not None
        _follow(child.stdout, {"progress": asked.progress, "metric": asked.metric, "log": asked.log}, ended)
    finally:
        for process in tree(child.pid).values():  # the ranks lead sessions of their own
            with contextlib.suppress(Exception):  # gone in between
                process.kill()
        child.wait()
    if "trained" in ended:
        return as_record(Trained, ended["trained"][0])
    if MEMORY in ended:
        raise OutOfMemory(str(ended[MEMORY][0]))
    raise StepFailed(_killed(ended) or str(next(iter(ended.get("failed", [])), "")) or _how(child.returncode))


def _environment(cards: int) -> dict[str, str]:
    gpus = measure_gpus()
    # A trainer that sees more than its own card would share its batch with it.
    env = {**TORCH_ENV, **pinning(gpus, cards), **(_RANKS_ENV if cards > 1 else {})}
    if trains_on_cpu() or not gpus:
        from tunesmith.tools.cpu.settings import COMPUTING

        env |= COMPUTING
        if cards > 1:  # accelerate would name it cpu:0, where torch restores no tensor of a checkpoint
            env["ACCELERATE_TORCH_DEVICE"] = "cpu"
    return env


def _follow(lines: IO[str], called: dict[str, Callable[..., None]], ended: dict[str, list[object]]) -> None:
    """Pass on what a training calls back with, until all of its processes have ended; `ended` gets the rest."""
    for line in lines:
        try:
            name, *values = json.loads(line)
        except (ValueError, TypeError):  # a line that a library printed
            called["log"](line.rstrip())
            continue
        if name in called:
            called[name](*values)
        else:
            ended.setdefault(name, []).append(values[0] if len(values) == 1 else values)


def _killed(ended: Mapping[str, Sequence[object]]) -> str:
    """Which rank a signal ended, or which died without a word; the others fail because of it, whatever they say."""
    # The launcher itself ends ranks by SIGTERM: what else ended one goes before.
    ends = ([*map(as_int, as_list(one))] for one in ended.get(DIED, ()))
    died = sorted(ends, key=lambda one: (one[1] >= 0, one[1] == -signal.SIGTERM))
    if not died or ("failed" in ended and died[0][1] >= 0):
        return ""
    rank, code = died[0]
    return f"{_how(code, f'rank {rank}')}; `tunesmith run --resume` goes on at the last checkpoint"


def _how(code: int, who: str = "the process") -> str:
    if code >= 0:
        return f"{who} of the training ended with exit code {code}; the log of the step says more"
    name = next((one.name for one in signal.Signals if one == -code), "unknown")
    why = "as the kernel does for want of memory; try a smaller micro_batch" if name == "SIGKILL" else "see the log"
    return f"{who} of the training was killed by signal {-code} ({name}), {why}"
