"""A model that the user names: on the hub, resolved to the commit that it has now; a folder; a bundled one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.memory.errors import BadInput
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.hub import newest_commit

_HUB = re.compile(r"(?<![\w/.~-])([A-Za-z0-9][\w.-]*/[\w.-]*\w)(?![\w/])")
_PATH = re.compile(r"(?<!\S)((?:~|\.{1,2})?/[\w./~-]+)")
_COMMIT = re.compile(r"\b[0-9a-f]{40}\b")


@dataclass(frozen=True, slots=True)
class Named:
    """The fields that a model stands for in a `base` step, and how it is told."""

    fields: Mapping[str, object]
    told: str


def named_model(text: str) -> Named | None:
    """The model in some words; None where none is named. Raises BadInput or StepFailed where it cannot be had."""
    if path := _PATH.search(text):
        folder = Path(path[1].rstrip(".,;")).expanduser()
        if not (folder / "config.json").is_file():
            raise BadInput(f"{folder} is no model folder: it has no config.json; name the folder that holds it")
        return Named({"model": str(folder)}, f"model {folder}")
    if hub := _HUB.search(text):
        return at_commit(hub[1], next(iter(_COMMIT.findall(text)), ""))
    if name := bundled_in(text.lower()):
        return Named({"model": name}, f"model {name} ({BUNDLED[name].title})")
    return None


def at_commit(model: str, revision: str) -> Named:
    """A hub model at a commit: the one that was said, else the newest. Raises BadInput, StepFailed."""
    commit = revision or newest_commit(model)
    return Named({"model": model, "revision": commit}, f"model {model} at commit {commit[:12]}")


def bundled_in(text: str) -> str:
    """The short name of the bundled model that is named, by that or as it is published; empty where none is."""
    spoken = {name: name for name in sorted(BUNDLED, key=len, reverse=True)}
    for name, model in BUNDLED.items():
        spoken.setdefault(model.name.removesuffix("-instruct"), name)
    for words, name in spoken.items():
        either = re.escape(words).replace(r"\-", "[- ]")
        if re.search(rf"\b{either}\b", text):
            return name
    if re.search(r"\bthe driver(?:'s)? model\b", text):
        return "bundled-driver"
    return "bundled" if re.search(r"\bsmollm2?\b", text) else ""
