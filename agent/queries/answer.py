"""What questions are answered from, and how an answer names runs, steps and times."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import ASIDE_RUNS, DONE, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import listed, visible
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.workspace import Workspace

_CLIPPED = 150
"""A line and a half of a terminal: a text is known by it."""


@dataclass(frozen=True, slots=True)
class Context:
    """What questions are answered from."""

    ws: Workspace
    current: Run | None = None
    """The run that a question without a name is about."""
    draft: PipelinePlan | None = None

    @property
    def store(self) -> Store:
        """The history."""
        return self.ws.store

    def runs(self) -> list[Run]:
        """The run talked about, then the others, the newest first."""
        others = [run for run in ordinary(self.store) if self.current is None or run.id != self.current.id]
        return [self.current, *others] if self.current else others

    def run(self, name: str, *, with_stage: str = "") -> Run:
        """The run that is meant: the one named, else the one talked about, else the newest that did such a step.

        Raises NotFound, naming the runs that there are.
        """
        if name:
            return find(self.store, name)
        runs = self.runs()
        if not runs:
            raise NotFound("There is no run yet; say what a model should learn, or “demo” for a first one.")
        did = (run for run in runs if any(s.stage == with_stage for s in self.store.steps(run.id, status=DONE)))
        return next(did, runs[0]) if with_stage else runs[0]


def ordinary(store: Store) -> list[Run]:
    """The runs that are somebody's work, the newest first."""
    return [run for run in store.runs() if run.name not in ASIDE_RUNS]


def find(store: Store, name: str) -> Run:
    """A run by its id or name. Raises NotFound, naming those that there are."""
    for run in store.runs():
        if name in (run.id, run.name):
            return run
    known = ", ".join(f"{run.id} ({clip(run.name, 30)})" for run in ordinary(store)[:6])  # the newest are what is meant
    raise NotFound(
        f"There is no run {clip(name, 30)}; " + (f"the runs are {known}." if known else "there is none yet.")
    )


def run_of_base(store: Store, model: str) -> Run:
    """The newest run whose base is called so, in whole or by its size. Raises NotFound with the bases that there are:
    what is asked of one base is not told of another."""
    wanted, bases = _parts(model), dict[str, str]()
    for run in ordinary(store):
        based = (step for step in store.priced_steps(run.id) if step.stage == "base")
        names = [str(made.meta.get("name", "")) for made in store.artifacts(run.id, "base")]
        for name in filter(None, (*names, *(str(step.request.get("model", "")) for step in based))):
            if wanted and wanted <= _parts(name):
                return run
            bases.setdefault(run.id, name)
    known = listed([f"{clip(name, 40)} in {run}" for run, name in bases.items()]) or "none"
    raise NotFound(f"There is no run {clip(model, 40)}, nor one of that base; the bases are: {known}.")


def _parts(model: str) -> set[str]:
    """A model's name without who published it, in parts: Qwen2.5-0.5B is qwen2.5 and 0.5b."""
    return {*re.split(r"[-_ ]+", model.lower().rpartition("/")[2].partition("@")[0])} - {""}


def within(at: float | None, since: datetime | None, until: datetime | None) -> bool:
    """Whether a point in time is known and lies in a span by this machine's clock; `until` is exclusive."""
    return at is not None and (since is None or at >= since.timestamp()) and (until is None or at < until.timestamp())


def spanned(since: datetime | None, until: datetime | None) -> dict[str, object]:
    """The span that facts are of, as it was asked for."""
    return {name: at and at.isoformat(" ", "minutes") for name, at in (("since", since), ("until", until))}


def cite(step: Step) -> str:
    """A step as an answer cites it."""
    return f"{step.id} of {step.run}"


def clip(text: object, most: int = _CLIPPED) -> str:
    """Text as data in one line, cut where it is long."""
    flat = " ".join(visible(text).split())
    return flat if len(flat) <= most else f"{flat[: most - 1].rstrip()}…"


def without_instruction(text: str) -> str:
    """A prompt without the line above the message that says what to do with it, where it has one."""
    first, _, rest = text.partition("\n\n")
    return rest.strip() if first.rstrip().endswith(":") and "\n" not in first and rest.strip() else text


def day(at: float | None) -> str:
    """A point in time, to the minute, by this machine's clock."""
    return "–" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


_BY = {
    "terminal": "you at the terminal",
    "edit": "you, with other values",
    "--yes": "--yes beforehand",
    "--approve": "--approve with the plan's hash",
}


def decided_by(who: object) -> str:
    """Who decided about a plan, in words."""
    return _BY.get(str(who), clip(who, 40))


def matching(words: str, texts: Mapping[str, str], most: int = 5) -> list[str]:  # an answer's lines
    """The ids of the texts that some words speak of, the likeliest first; none where nothing telling is shared."""
    if named := [one for one in texts if one.lower() in words.lower()]:
        return sorted(named, key=len, reverse=True)
    stems = {one: _stems(f"{text} {one.replace('-', ' ')}") for one, text in texts.items()}
    holding = Counter(stem for of_one in stems.values() for stem in of_one)
    weight = {stem: math.log(1 + len(texts) / holding[stem]) for stem in _stems(words) if holding[stem]}
    scored = {one: sum(weight[stem] for stem in weight.keys() & of_one) for one, of_one in stems.items()}
    best = max(scored.values(), default=0.0)
    # A third of what the words say, and at least one word that two thirds of the texts do not have: else it is chance.
    if best < max(0.3 * sum(weight.values()), math.log(3)):
        return []
    ranked = sorted(scored, key=lambda one: (-scored[one], one))
    return [one for one in ranked[:most] if scored[one] >= 0.6 * best]  # nearly as likely as the best


def _stems(text: str) -> set[str]:
    return {word[:_STEM] for word in re.findall(r"[^\W_]{3,}", text.lower())}


_STEM = 5
"""Letters by which two words are one, whatever they end with and in which language."""
