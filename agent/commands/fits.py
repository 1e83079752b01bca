"""`tunesmith fits MODEL` on a terminal: a line for each task, and what would fit where that does not."""

from __future__ import annotations

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.models.fits import Fits, Task


def view(answer: Fits, *, card_gib: float) -> RenderableType:
    """The verdicts first, the memory that they were held against above them."""
    room = answer.room
    where = f"a card of {card_gib:g} GiB" if card_gib else "this machine"
    memory = (
        f"{size(room.vram_bytes)} VRAM and {size(room.ram_bytes)} RAM"
        if room.on_card
        else f"{size(room.ram_bytes)} RAM"
    )
    active = (
        f", {answer.active_parameters / 1e9:.2f} billion of them at work on a token"
        if answer.active_parameters < 0.9 * answer.parameters
        else ""
    )
    usual = " (the usual shape of that size)" if answer.approximate else ""
    return Group(
        render.plain(f"{answer.model}{usual}: {answer.parameters / 1e9:.2f} billion parameters{active}"),
        render.plain(f"{where}: {memory}"),
        render.rows_table(
            ["task", "precision", "fits", "VRAM", "RAM", "disk", "time, about"], [_row(task) for task in answer.tasks]
        ),
        *(
            render.plain(f"{task.task} at {task.precision}: try {', or '.join(task.try_)}")
            for task in answer.tasks
            if task.try_
        ),
    )


def _row(task: Task) -> list[str]:
    return [
        task.task,
        task.precision,
        "yes" if task.fits else "no",
        size(task.vram_bytes) if task.vram_bytes else "",
        size(task.ram_bytes) if task.ram_bytes else "",
        size(task.disk_bytes),
        duration(task.seconds),
    ]
