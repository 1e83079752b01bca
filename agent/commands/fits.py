"""`tunesmith fits MODEL` on a terminal: a line for each task, and what would fit where that does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.memory.json_values import picked
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.machine.cards import Card
from tunesmith.tools.models.known_bases import KnownBase
from tunesmith.tools.pipeline.fits import Fits, Task, times_are_for, to_json


def listed_document(bases: Sequence[tuple[KnownBase, Fits]]) -> dict[str, object]:
    """The bases that are proposed where nobody names one, as `--json` prints them."""
    return {
        "bases": [
            {**picked(base, "model", "license", "why", "on_hub"), "fits": to_json(answer)} for base, answer in bases
        ]
    }


def listed_view(bases: Sequence[tuple[KnownBase, Fits]], card: Card | None) -> RenderableType:
    """A line for each of them: at how many bits a plan trains it, and how long that takes."""
    rows = []
    for base, answer in bases:
        way = answer.decided
        trains = "no" if way.lacks.keys() & {"preflight", "train"} else f"{way.trained} bits"
        took = duration(way.plans["train"].estimate.seconds)
        rows.append([base.model, f"{base.parameters / 1e9:.2g}B", base.license, trains, took, base.why])
    return Group(
        *where(bases[0][1].machine, card, here=card is None),
        render.rows_table(["model", "size", "license", "trains", "time, about", "why it is listed"], rows),
        render.plain(f"The times are of training, for {times_are_for()}. `tunesmith fits MODEL` says more of one."),
    )


def where(machine: Machine, card: Card | None, *, here: bool) -> Iterator[RenderableType]:
    """The memory that there is, on this machine or another."""
    each = " on each" if len(machine.gpus) > 1 else ""
    vram = f"{size(machine.vram_room_on(1))} VRAM{each} and " if machine.gpus else ""
    memory = f"{vram}{size(machine.memory_room_bytes)} RAM"
    unknown = "" if here else "; the disk of that machine is not known"
    name = card.name if card else "this machine" if here else "a machine without a card"
    yield render.plain(f"{name}: {memory}{unknown}")
    if card and card.note:
        yield render.plain(f"{card.note}.")


def view(answer: Fits, card: Card | None) -> RenderableType:
    """The verdicts first, the memory that they were held against above them."""
    active = (
        f", {answer.active_parameters / 1e9:.2f} billion of them at work on a token"
        if answer.active_parameters < 0.9 * answer.parameters  # a mixture: dense models differ by their embeddings
        else ""
    )
    usual = " (the usual shape of that size)" if answer.approximate else ""
    return Group(
        render.plain(f"{answer.model}{usual}: {answer.parameters / 1e9:.2f} billion parameters{active}"),
        *where(answer.machine, card, here=card is None),
        render.plain(f"A{str(answer.decided)[1:]}."),
        render.rows_table(
            ["task", "precision", "fits", "VRAM", "RAM", "disk", "time, about"], [_row(task) for task in answer.tasks]
        ),
        render.plain(f"The times are for {times_are_for()}."),
        *(
            render.plain(f"{task.task} at {task.precision}: {refusal}")
            for task in answer.tasks
            for refusal in task.plan.refusals
        ),
    )


def _row(task: Task) -> list[str]:
    times = f"{task.cards} × " if task.cards > 1 else ""
    return [
        task.task,
        task.precision,
        "yes" if task.fits else "no",
        times + size(task.vram_bytes) if task.vram_bytes else "",
        size(task.ram_bytes) if task.ram_bytes else "",
        size(task.plan.estimate.disk_bytes),
        duration(task.plan.estimate.seconds),
    ]
