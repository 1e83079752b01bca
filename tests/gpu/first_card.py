"""The first hour of a card, `make first-card`: what only a card can confirm, in the order of its worth.

Each task is kept as it ends, under what it is and where it ran, and a second call goes on with what is left. After
every task one Markdown file is written whole: each figure beside the predicted one, and what to do next in its last
line.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from tests.gpu.runner import (
    LOG,
    MOST_TIMES,
    ONE_CARD,
    OUT_OF_TIME,
    Ended,
    card_environment,
    carried_out,
    check_in,
    stop_servers,
    throw_away,
)
from tests.gpu.table import GROUPS, Check, Group, Task
from tunesmith.memory.files import atomic_write
from tunesmith.tools.core.format import count, duration, listed, moment, one_line, short, size
from tunesmith.tools.core.machine import Gpu, chosen_gpu
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.machine.gpus import measure_gpus, pinning, trains_on_cpu, why_no_gpu
from tunesmith.tools.machine.vllm_program import engine_beside, find_vllm
from tunesmith.tools.pipeline.gpu_check.findings import Finding

PAGE = "first-card.md"
MINUTES = 60
AGAIN = "make first-card"
"""Goes on with what is left."""
_PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "llmcompressor")
_HEAD = ["| item | predicted | measured | measured ÷ predicted | came out | why |", "|---|---|---|---|---|---|"]
TOLD = {"ok": "as predicted", "failed": "**not as predicted**", "skipped": "left out"}


class Kept(Frozen):
    """What came of a task, as it is kept."""

    state: Literal["done", "killed", "unfinished", "left out"]
    """Done and killed ones have ended: one is killed at its own bound. With the hour it is left unfinished."""
    found: tuple[Finding, ...] = ()
    why: str = ""

    @property
    def has_ended(self) -> bool:
        return self.state in ("done", "killed")

    @classmethod
    def of(cls, ended: Ended) -> Kept:
        out_of_time = ended.killed and ended.why == OUT_OF_TIME
        state = "left out" if ended.unbegun else "unfinished" if out_of_time else "killed" if ended.killed else "done"
        return cls(state=state, found=tuple(ended.found), why=ended.why)


@dataclass(frozen=True)
class Hour:
    """The tasks of one card, and the folder in which what came of each is kept."""

    folder: Path
    check: Check
    facts: Mapping[str, str]
    """The card, its driver, and the versions of what computes: other ones are measured anew."""
    groups: Sequence[Group] = GROUPS

    @property
    def page(self) -> Path:
        return self.folder / PAGE

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(task for group in self.groups for task in group.tasks)

    def place(self, task: Task) -> Path:
        """Where a task is kept: by what it does, of which sizes, on which card, with which programs."""
        of_some = {"vLLM": task.needs_vllm, "cards": task.several}
        facts = {name: fact for name, fact in self.facts.items() if of_some.get(name, True)}
        what = [task.work, task.gives, self.check.device, self.check.sizes.model_dump(mode="json"), facts]
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        return self.folder / "kept" / f"{task.work.rpartition('.')[2].replace(':', '-')}-{short(digest)}.json"

    def kept(self, task: Task) -> Kept | None:
        place = self.place(task)
        return Kept.model_validate_json(place.read_bytes()) if place.is_file() else None

    def left(self) -> list[Task]:
        """Tasks that another call would begin: those that have not ended, but for those that lack a second card."""
        all_kept = ((task, self.kept(task)) for task in self.tasks)
        return [task for task, kept in all_kept if kept is None or not (kept.has_ended or kept.why == ONE_CARD)]

    def carry_out(self, *, deadline: float, say: Callable[[str], None], again: Sequence[str] = ()) -> None:
        """Carry out what has not ended, until `deadline` on the monotonic clock.

        `again`: words of tasks to carry out anew: `all`, a state, or a part of a name.
        """
        for task in self.tasks:
            if (kept := self.kept(task)) and any(_means(word, task, kept) for word in again):
                self.place(task).unlink()
        stop_servers(self.check)  # of a call that was killed
        for number, task in enumerate(self.tasks, 1):
            if (kept := self.kept(task)) and kept.has_ended:
                continue
            say(f"{number} of {len(self.tasks)}: {task.doing}, at most {duration(MOST_TIMES * task.seconds)}")
            self._keep(task, Kept(state="unfinished"))  # which it is unless it ends
            now = Kept.of(carried_out(self.check, task, deadline=deadline))
            self._keep(task, now)
            say("; ".join(f"{item.name}: {TOLD[item.state].strip('*')}" for item in now.found))
        if not self.left():
            throw_away(self.check)

    def _keep(self, task: Task, kept: Kept) -> None:
        place = self.place(task)
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, kept.model_dump_json(indent=1))
        atomic_write(self.page, self.told(time.time()))

    def items(self) -> Iterator[tuple[Group, Task, Finding | None]]:
        """Every item, in the order of its worth; None of one that was not reached."""
        for group in self.groups:
            for task in group.tasks:
                kept = self.kept(task)
                found = {item.name: item for item in kept.found} if kept else {}
                yield from ((group, task, found.get(name)) for name in task.gives)

    def wrong(self) -> list[tuple[Group, Task, Finding]]:
        """Items that are not as predicted, the most worthy first."""
        return [(group, task, item) for group, task, item in self.items() if item and item.state == "failed"]

    def told(self, at: float) -> str:
        """The file: the machine, each figure beside the predicted one, and in the last line what to do next."""
        states = [item.state if item else "" for _, _, item in self.items()]
        sums = [f"{states.count(state)} {told.strip('*')}" for state, told in TOLD.items()]
        facts = {**self.facts, "written": moment(at), "items": ", ".join([*sums, f"{states.count('')} to do"])}
        lines = ["# What a card confirmed", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {_cell(fact)} |" for name, fact in facts.items()]
        for number, group in enumerate(self.groups, 1):
            lines += ["", f"## {number}. {group.question}", ""]
            lines += [
                "| item | predicted | measured | measured ÷ predicted | came out | |",
                "|---|---|---|---|---|---|",
            ]
            lines += [row for task in group.tasks for row in self._rows(task)]
        return "\n".join([*lines, "", self.next(), ""])

    def _rows(self, task: Task) -> Iterator[str]:
        kept = self.kept(task)
        found = {item.name: item for item in kept.found} if kept else {}
        state = kept.state if kept else "to do"
        for name in task.gives:
            cells = ["", "", "", state, ""]
            if item := found.get(name):
                killed = state == "killed" and item.state == "failed" and item.measured is None
                ratio = f"{item.ratio:.2f}" if item.ratio is not None else ""
                quantities = [_quantity(value, item.unit) for value in (item.expected, item.measured)]
                cells = [*quantities, ratio, "**killed**" if killed else TOLD[item.state], item.why]
            yield f"| {' | '.join(map(_cell, [name, *cells]))} |"

    def next(self) -> str:
        """What to send back, and what to change or to run before."""
        wrong, left = self.wrong(), self.left()
        lines = []
        if left:
            whys = {kept.why for task in left if (kept := self.kept(task)) and kept.why}
            why = f" ({listed(sorted(whys))})" if whys else ""
            lines += [f"Run `{AGAIN}` again, {count(len(left), 'task')} of {len(self.tasks)} are left{why}."]
        lines += [f"Send back this file and `{self.check.dir / LOG}`."] if wrong else ["Send back this file."]
        if wrong:
            group, task, item = wrong[0]
            more = f"; {count(len(wrong) - 1, 'more item')} below or beside it may follow from it" * (len(wrong) > 1)
            kept = self.kept(task)
            if item.ratio is not None:
                lines += [f"Change {group.change}: `{item.name}` is {item.ratio:.2f} times the predicted{more}."]
            elif kept and kept.state == "killed":
                lines += [f"`{item.name}` was killed, and `{AGAIN} AGAIN=killed` tries it once more{more}."]
            else:
                lines += [f"Look first at `{item.name}`: {one_line(item.why) or 'it does not hold'}{more}."]
        elif not left:
            lines += [f"Every figure is as predicted: README.md may say so of {self.facts['card']}."]
        return " ".join(lines)


def _means(word: str, task: Task, kept: Kept) -> bool:
    names = " ".join([task.work, task.doing, *task.gives]).lower()
    states = {"all", kept.state, *(item.state for item in kept.found if item.state == "failed")}
    return word.lower() in states or word.lower() in names


def _cell(value: str) -> str:
    return one_line(value).replace("|", "\\|")


def _quantity(value: float | str | None, unit: str) -> str:
    if value is None or isinstance(value, str):
        return value or "–"
    return size(int(value)) if unit == "bytes" else f"{value:.3g} {unit}"


def facts_of(gpus: Sequence[Gpu], vllm: str | None) -> dict[str, str]:
    """What the figures depend on, as the file tells it."""
    card = chosen_gpu(gpus)
    assert card is not None, "why_no_gpu was asked"
    return {
        "card": f"{card.name}, {size(card.total_bytes)}",
        "cards": str(len(gpus)),
        "driver": f"{card.driver}, compute capability {card.compute_capability}",
        "tunesmith": version("tunesmith"),
        "programs": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "vLLM": (engine_beside(vllm) if vllm else "") or "none",
    }


@contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Whether no other process is at work in this folder, and none begins while this one is."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def hour_here(folder: Path, gpus: Sequence[Gpu]) -> Hour:
    """The hour of the cards that are here."""
    vllm = find_vllm(None)
    several = pinning(gpus, 2) if len(gpus) > 1 else {}
    os.environ.update(card_environment())
    check = check_in(folder, vllm=vllm, several="".join(several.values()))
    return Hour(folder, check, facts_of(gpus, vllm))


def main(argv: Sequence[str] | None = None, make: Callable[[Path, Sequence[Gpu]], Hour] = hour_here) -> int:
    """0 where every item is as predicted, 1 where one is not or is left, 2 where there is no card; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog=AGAIN, description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path("first-card"), help="where the file and what is kept lie")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="the most that all of it may take")
    parser.add_argument(
        "--again", nargs="*", default=[], help="carry out anew: all, killed, failed, or a part of a name"
    )
    args = parser.parse_args(argv)
    gpus = measure_gpus()
    if why := why_no_gpu(gpus, on_cpu=trains_on_cpu()):
        print(why, file=sys.stderr)
        return 2
    deadline = time.monotonic() + 60 * args.minutes
    folder = args.dir.resolve()
    with alone_in(folder) as alone:
        if not alone:
            print(f"another process is at work in {folder}; wait for it, or name another folder", file=sys.stderr)
            return 2
        hour = make(folder, gpus)
        try:
            hour.carry_out(deadline=deadline, say=lambda line: print(line, flush=True), again=args.again)
        except KeyboardInterrupt:
            stop_servers(hour.check)
            print(f"stopped; `{AGAIN}` goes on with the task that was cut off", file=sys.stderr)
            return 130
    print(f"{hour.page}\n{hour.next()}")
    return 1 if hour.wrong() or hour.left() else 0


if __name__ == "__main__":
    sys.exit(main())
