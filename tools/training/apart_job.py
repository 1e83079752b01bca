"""A training in a process of its own: with it goes all that it held, the CUDA context of a card too.

The parent calls `train_apart` as it would `train_lora`. The child (`python -m … FD`) reads what is asked of it from its
standard input, and writes lines of JSON to the pipe FD: what it calls back with, and what it trained or why not.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunesmith.memory.errors import StepFailed, TunesmithError
from tunesmith.memory.privacy import keep_private
from tunesmith.tools.machine.gpus import measure_gpus, trains_on_cpu
from tunesmith.tools.machine.processes import end_with_parent, python_module
from tunesmith.tools.machine.torch_env import TORCH_ENV
from tunesmith.tools.training.lora_settings import LoraSettings
from tunesmith.tools.training.train_job import Metric, Progress, Trained, train_lora

_PATHS = ("base_dir", "rows_path", "out_dir", "checkpoints_dir")


def train_apart(
    base_dir: Path,
    rows_path: Path,
    out_dir: Path,
    settings: LoraSettings,
    *,
    checkpoints_dir: Path,
    progress: Progress,
    metric: Metric,
    log: Callable[[str], None],
) -> Trained:
    """`train_lora` in a child, in the environment of a training. Raises StepFailed as that does, or where it dies."""
    asked = dict(zip(_PATHS, map(str, (base_dir, rows_path, out_dir, checkpoints_dir)), strict=True))
    env = dict(TORCH_ENV)
    if trains_on_cpu() or not measure_gpus():
        from tunesmith.tools.cpu.settings import COMPUTING

        env |= COMPUTING
    reading, writing = os.pipe()
    child = subprocess.Popen(
        ["/usr/bin/env", *(f"{name}={value}" for name, value in env.items()), *python_module(_ME, str(writing))],
        stdin=subprocess.PIPE,
        pass_fds=(writing,),
        cwd=rows_path.parent,
    )
    os.close(writing)
    called: dict[str, Callable[..., None]] = {"progress": progress, "metric": metric, "log": log}
    ended: dict[str, Any] = {}
    try:
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError), child.stdin as stdin:  # how it ended is said below
            stdin.write(json.dumps({**asked, "settings": asdict(settings)}).encode())
        with os.fdopen(reading, encoding="utf-8") as lines:
            for line in lines:
                name, *values = json.loads(line)
                if name in called:
                    called[name](*values)
                else:
                    ended[name] = values[0]
    except BaseException:
        child.kill()
        raise
    finally:
        child.wait()
    if "trained" in ended:
        return Trained(**ended["trained"])
    raise StepFailed(ended.get("failed") or _how(child.returncode))


def _how(code: int) -> str:
    if code == -signal.SIGKILL:
        return "the training was ended by the kernel, as it is for want of memory; try a smaller micro_batch"
    return f"the process of the training ended with exit code {code}; the log of the step says more"


def main() -> int:
    """The child: 0 where it trained."""
    asked = json.load(sys.stdin)
    keep_private()
    end_with_parent()
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as lines:

        def tell(name: str, *values: object) -> None:
            lines.write(json.dumps([name, *values]) + "\n")
            lines.flush()

        try:
            trained = train_lora(
                Path(asked["base_dir"]),
                Path(asked["rows_path"]),
                Path(asked["out_dir"]),
                LoraSettings(**asked["settings"]),
                checkpoints_dir=Path(asked["checkpoints_dir"]),
                progress=lambda *values: tell("progress", *values),
                metric=lambda *values: tell("metric", *values),
                log=lambda text: tell("log", text),
            )
        except Exception as error:
            traceback.print_exc()
            tell("failed", str(error) if isinstance(error, TunesmithError) else f"{type(error).__name__}: {error}")
            return 1
        tell("trained", asdict(trained))
    return 0


_ME = "tunesmith.tools.training.apart_job"

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a model is taken apart by the kernel, in no time
