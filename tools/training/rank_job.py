"""A training's own process: one of its ranks, or for several cards what launches them (see `apart_job`).

`python -m … CARDS REQUEST`: the file REQUEST says what is trained.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.json_values import as_record
from tunesmith.memory.privacy import keep_private
from tunesmith.tools.machine.device import this_rank
from tunesmith.tools.machine.processes import end_with_parent
from tunesmith.tools.training.apart_job import DIED, MEMORY
from tunesmith.tools.training.lora_settings import LoraSettings
from tunesmith.tools.training.train_job import train_lora
from tunesmith.tools.training.trained import OutOfMemory, ToTrain

_ME = "tunesmith.tools.training.rank_job"
_ONE_WRITE = 2000
"""Characters of a failure: more would not reach a pipe in one piece, which the ranks share."""


def launch_arguments(cards: int, cores: int, arguments: Sequence[str]) -> list[str]:
    """What `accelerate launch` is told: a process a card, on this machine, at a free port, the cores shared."""
    return [
        "--multi_gpu",  # its word for torch's launcher, without a GPU too: gloo then takes the place of NCCL
        f"--num_processes={cards}",
        "--num_machines=1",
        "--mixed_precision=no",  # the trainer says itself
        "--dynamo_backend=no",
        "--main_process_port=0",
        f"--num_cpu_threads_per_process={max(1, cores // cards)}",
        "--module",
        _ME,
        *arguments,
    ]


def main() -> int:
    """The child, or a rank of it: 0 where it trained."""
    cards, request = int(sys.argv[1]), sys.argv[2]
    keep_private()
    end_with_parent()
    if cards > 1:
        return _launch(cards, request)
    # The parent reads JSON at the standard output; what libraries print there from now on goes to the log.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as lines:
        os.dup2(2, 1)

        def tell(name: str, *values: object) -> None:
            lines.write(json.dumps([name, *values]) + "\n")
            lines.flush()

        try:
            return _train(request, tell)
        except Exception as error:  # whatever it is, the parent has to be told in its words
            traceback.print_exc()
            text = str(error) if isinstance(error, TunesmithError) else f"{type(error).__name__}: {error}"
            tell(MEMORY if isinstance(error, OutOfMemory) else "failed", text[:_ONE_WRITE])
            return 1


def _launch(cards: int, request: str) -> int:
    import torch
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        arguments = launch_arguments(cards, torch.get_num_threads(), ["1", request])
        launch_command(launch_command_parser().parse_args(arguments))
    except ChildFailedError as error:  # a rank that a signal ended could not say so itself
        for rank, failure in error.failures.items():
            print(json.dumps([DIED, rank, failure.exitcode]), flush=True)
        return 1
    return 0


def _train(request: str, tell: Callable[..., None]) -> int:
    recorded = json.loads(Path(request).read_text())
    settings = LoraSettings(**recorded.pop("settings"))
    paths = {name: Path(path) for name, path in recorded.items()}
    asked = as_record(partial(ToTrain, settings=settings), paths)
    if not this_rank().is_main_process:
        train_lora(asked)
        return 0
    progress, metric, log = (partial(tell, name) for name in ("progress", "metric", "log"))
    tell("trained", asdict(train_lora(replace(asked, progress=progress, metric=metric, log=log))))
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a model is taken apart by the kernel, in no time
