"""`tunesmith fits MODEL` on a terminal: a line for each task, and what would fit where that does not."""

from __future__ import annotations

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.machine.cards import Card
from tunesmith.tools.pipeline.fits import Fits, Task, times_are_for


def view(answer: Fits, card: Card | None) -> RenderableType:
    """The verdicts first, the memory that they were held against above them."""
    machine = answer.machine
    where = card.name if card else "this machine"
    vram = f"{size(machine.vram_free_bytes)} VRAM and " if machine.gpus else ""
    memory = f"{vram}{size(machine.memory_free_bytes)} RAM"
    memory += "; the disk of that machine is not known" if card else ""
    active = (
        f", {answer.active_parameters / 1e9:.2f} billion of them at work on a token"
        if answer.active_parameters < 0.9 * answer.parameters
        else ""
    )
    usual = " (the usual shape of that size)" if answer.approximate else ""
    return Group(
        render.plain(f"{answer.model}{usual}: {answer.parameters / 1e9:.2f} billion parameters{active}"),
        render.plain(f"{where}: {memory}"),
        *((render.plain(f"{card.note}."),) if card and card.note else ()),
        render.rows_table(
            ["task", "precision", "fits", "VRAM", "RAM", "disk", "time, about"], [_row(task) for task in answer.tasks]
        ),
        *(render.plain(f"{task.task} at {task.precision}: {task.bought}") for task in answer.tasks if task.bought),
        render.plain(f"The times are for {times_are_for()}."),
        *(
            render.plain(f"{task.task} at {task.precision}: {refusal}")
            for task in answer.tasks
            for refusal in task.plan.refusals
        ),
    )


def _row(task: Task) -> list[str]:
    return [
        task.task,
        task.precision,
        "yes" if task.fits else "no",
        size(task.vram_bytes) if task.vram_bytes else "",
        size(task.ram_bytes) if task.ram_bytes else "",
        size(task.plan.estimate.disk_bytes),
        duration(task.plan.estimate.seconds),
    ]
