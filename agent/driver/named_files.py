"""A file of rows that a sentence names: looked at at once, without importing it, and its import proposed.

What else the sentence asks for is told too: a base that it names, and steps that come after the import.
"""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from tunesmith.agent.commands.rows import exported
from tunesmith.agent.commands.rows_view import review_of
from tunesmith.agent.driver.look_ups import looked_up, whether_it_fits
from tunesmith.agent.driver.planning import named_base
from tunesmith.agent.driver.turn_deps import TurnAnswer, TurnDeps
from tunesmith.agent.queries.facts import Proposed
from tunesmith.agent.queries.files import FileQuery
from tunesmith.agent.words.reading import Reading
from tunesmith.agent.words.slots import Slots
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.format import listed
from tunesmith.tools.imports.sources import KINDS, is_rows_file

_MEANS_A_FILE = ("talk.own_data", "talk.rows_checked", "remark", "talk.first_rows", "do.critique", "do.train")
"""What words about a file of rows are read as that order nothing of it by name."""

_LOOKED = ("import", "base", "critique")
"""Stages that the answer itself is about, or that are a word for looking a file through."""


def file_in(slots: Slots) -> str:
    """The path that a sentence names as one of rows; empty: none."""
    return next((path for path in slots.values("path") if is_rows_file(path)), "")


def means_a_file(deps: TurnDeps, reading: Reading) -> bool:
    """Whether words about a file of rows ask for nothing that is answered or done otherwise, or for its import where
    there is no run yet to import it in."""
    if not file_in(reading.slots):
        return False
    if reading.label.startswith("do.import"):
        return reading.sure and deps.current_run() is None
    asked = reading.request
    answered = isinstance(asked, FileQuery) and (reading.sure or asked.about != "doubles")
    return not answered and (not reading.sure or reading.label in _MEANS_A_FILE)


def told(deps: TurnDeps, path: str, slots: Slots) -> TurnAnswer:
    """What the file is and how many of its records are valid, the import proposed, and what else was said."""
    try:
        seen = looked_up(deps, FileQuery(about="valid", path=path))
    except BadInput as error:
        kinds = "" if is_rows_file(path) else f" Rows are read from {', '.join(KINDS)} files."
        reason = f"{str(error)[0].upper()}{str(error)[1:]}".rstrip(".")
        lines = [f"{reason}.{kinds} Nothing was imported or begun."]
        have = [one.run for one in deps.store.newest_of_kind("rows")]
        run = next((one for one in have if slots.first("run") in ("", one)), "")
        if run and path.endswith(".jsonl") and not Path(path).expanduser().exists():
            kept = len(exported(deps.store.rows(review_of(deps.store, run).step)))
            writes = f"`tunesmith rows export {quote(path)} --run {run}` writes the {kept} rows that {run} kept"
            if slots.values("stage") == ["release"]:  # `export the rows to kept.jsonl`
                return TurnAnswer(f"{writes}; nothing was written yet, and nothing else begun.")
            lines.append(f"{writes}.")
        lines += _also_said(deps, slots)
        return TurnAnswer("\n".join(lines))
    lines = [seen.text]
    if deps.current_run() is None:
        lines.append(
            f"Rows are imported in a run, and there is none yet: say what a model should learn, or “base” begins one; "
            f"then “import {path}”."
        )
    elif "which columns to map" not in seen.text:  # it can be taken as it is
        deps.proposals = (Proposed("", "import", {"source": path}),)
        lines.append("“Do that” imports it.")
    lines += _also_said(deps, slots)
    return TurnAnswer("\n".join(lines), seen.for_model, seen.tool, seen.arguments)


def _also_said(deps: TurnDeps, slots: Slots) -> list[str]:
    """What a sentence says beside the file: its base, and the steps that it names."""
    lines = []
    try:
        if base := named_base(slots):
            fits = whether_it_fits(deps, base)
            lines.append(f"The base would be {base}: “base model={base}” prices it. {fits}".strip())
    except BadInput as error:
        lines.append(f"Of the base: {error}.")
    works = ["train"] if "train" in slots.values("work") else []
    later = [one for one in dict.fromkeys([*slots.values("stage"), *works]) if one not in _LOOKED]
    if later:
        lines.append(f"Of {listed(later, 4)} nothing was begun: say it once the rows are in, and its price is shown.")
    return lines
