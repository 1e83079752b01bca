"""Tasks of a check, each in a process of its own, until all are done or the time is over.

`python -m tests.gpu.runner DIR MODULE:FUNCTION` is such a process. It reads the check from DIR and adds a line to a
file there for each finding, as it finds it: what was found is kept, however the process ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from tests.gpu.table import MODELS, Check, Task, skipped
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.files import atomic_write
from tunesmith.memory.store import Store
from tunesmith.tools.machine.gpus import measure_gpus
from tunesmith.tools.machine.processes import end_with_parent, python_module, tree, with_environment
from tunesmith.tools.pipeline import catalog, launcher
from tunesmith.tools.pipeline.gpu_check.findings import Finding, failed
from tunesmith.tools.serving import servers

NO_VLLM = "no vLLM was found; `tunesmith setup` installs it, and TUNESMITH_VLLM names another one"
ONE_CARD = "it takes two cards, and one is here"
OUT_OF_TIME = "out of time"
LEAST_S = 5.0
"""Less time than this is not begun with."""
MOST_TIMES = 3.0
"""A task is ended after so many times its usual seconds."""
LOG = "log.txt"
"""What the processes print, below the folder of a check."""
_CHECK, _FINDINGS, _ERROR = "check.json", "findings.jsonl", "error.txt"


class Ended(NamedTuple):
    """How a task's process ended."""

    found: Sequence[Finding]
    why: str = ""
    """Why there are no more; empty where it came to its end."""
    killed: bool = False
    """Whether its time was over."""
    unbegun: bool = False


def measured(check: Check, tasks: Sequence[Task], *, deadline: float) -> Iterator[Finding]:
    """A finding for each name of every task, until `deadline` on the monotonic clock."""
    for task in tasks:
        yield from carried_out(check, task, deadline=deadline).found


def carried_out(check: Check, task: Task, *, deadline: float) -> Ended:
    """A finding for each name of a task, carried out in a process of its own.

    A task that fails, dies, or takes `MOST_TIMES` its usual time fails the items that it has not found. Where the time
    is over before that, they are skipped as out of time.
    """
    left = deadline - time.monotonic()
    if unbegun := OUT_OF_TIME if left < LEAST_S else _lacks(check, task):
        return Ended([skipped(name, unbegun) for name in task.gives], unbegun, unbegun=True)
    most = min(left, MOST_TIMES * task.seconds)
    try:
        atomic_write(check.dir / _CHECK, check.model_dump_json(indent=1))
        ended = in_a_process(check, task, most)
    except Exception as error:
        ended = Ended((), f"{type(error).__name__}: {error}")
    found = {finding.name: finding for finding in ended.found}
    why = ended.why or "it was not found"
    if ended.killed:
        why = f"not done after {most:.0f} s, {MOST_TIMES:g} times what it usually takes"
    out_of_time = ended.killed and most == left
    end = partial(skipped, why=OUT_OF_TIME) if out_of_time else partial(failed, why=why)
    findings = [found.get(name) or end(name) for name in task.gives]
    return Ended(findings, OUT_OF_TIME if out_of_time else ended.why and why, ended.killed)


def _lacks(check: Check, task: Task) -> str:
    """What a task needs that is not here."""
    if task.needs_vllm and not check.vllm:
        return NO_VLLM
    return ONE_CARD if task.several and check.on_card and not check.several else ""


def in_a_process(check: Check, task: Task, most_s: float) -> Ended:
    """Carry a task out in a process, which is killed after so many seconds or when this one is stopped."""
    findings, error = check.dir / _FINDINGS, check.dir / _ERROR
    for file in (findings, error):
        file.unlink(missing_ok=True)
    command = python_module("tests.gpu.runner", str(check.dir), task.work)
    if task.hides_card or task.several:
        command = with_environment({"CUDA_VISIBLE_DEVICES": check.several if task.several else ""}, command)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (check.dir / LOG).open("ab") as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=check.dir, env=env)
    killed = False
    try:
        child.wait(most_s)
    except subprocess.TimeoutExpired:
        killed = True
    finally:
        if child.poll() is None:
            for process in tree(child.pid).values():
                with contextlib.suppress(Exception):  # gone in between
                    process.kill()
            child.wait()
    lines = findings.read_text().splitlines() if findings.is_file() else []
    why, code = "", child.returncode
    if code and not killed:
        how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
        why = error.read_text() if error.is_file() else f"its process ended with {how}"
    return Ended([Finding.model_validate_json(line) for line in lines], why, killed)


def check_in(folder: Path, **fields: Any) -> Check:
    """A check with its home, its step and what tasks make in `folder`; it goes on with those of an earlier one."""
    with contextlib.closing(Store(folder / "home")) as store:
        known = [step.id for step in store.priced_steps()]
        step = known[0] if known else store.propose(store.new_run("checks"), "doctor", plan_hash="h")
    (folder / "step").mkdir(exist_ok=True)
    return Check(home=folder / "home", dir=folder / "step", step=step, **fields)


def card_environment() -> dict[str, str]:
    """What tasks are started with on a card, as the worker of `doctor --gpu` is."""
    return launcher.worker_environment(catalog.ENTRIES["doctor"].load(), {}, measure_gpus())


def stop_servers(check: Check) -> None:
    """Stop what a task left serving."""
    for server in servers.list_servers(check.home, role=servers.BENCH):
        if server.owner == check.step:
            servers.stop(server)


def throw_away(check: Check) -> None:
    """Stop what a task left serving, and remove the models that were made."""
    stop_servers(check)
    shutil.rmtree(check.dir / MODELS, ignore_errors=True)


def work_of(named: str) -> Callable[[Check], Iterator[Finding]]:
    """The function that `module:function` names."""
    module, _, function = named.partition(":")
    work: Callable[[Check], Iterator[Finding]] = getattr(import_module(module), function)
    return work


def main() -> int:
    """Carry out one task; 0 where it came to its end, else 1 with the reason in a file."""
    folder, named = Path(sys.argv[1]), sys.argv[2]
    end_with_parent()
    check = Check.model_validate_json((folder / _CHECK).read_bytes())
    began = time.monotonic()
    try:
        with (folder / _FINDINGS).open("a", encoding="utf-8") as lines:
            for finding in work_of(named)(check):
                now = time.monotonic()
                lines.write(finding.model_copy(update={"seconds": round(now - began, 3)}).model_dump_json() + "\n")
                lines.flush()
                began = now
    except Exception as error:
        traceback.print_exc()
        kind = "" if isinstance(error, TunesmithError) else f"{type(error).__name__}: "
        (folder / _ERROR).write_text(f"{kind}{' '.join(str(error).split())}"[:600])
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a model is taken apart by the kernel, in no time
