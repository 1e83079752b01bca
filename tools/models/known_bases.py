"""The models that are proposed where nobody names one: those of the package index, and for a card some of the hub.

Each is open-licensed, by its maker's own model card; its sizes are those of `families` or of its package. What it can
do is not claimed here: a baseline measures that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.families import KNOWN_MODELS, config_of
from tunesmith.tools.models.folder import read_config
from tunesmith.tools.models.model_names import shape_of

_PACKAGED = ("bundled", "bundled-0.5b", "bundled-1.5b")
_ON_HUB = (
    ("Qwen/Qwen2.5-1.5B-Instruct", "Apache-2.0", "general sibling of the packaged 1.5B"),
    ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "Apache-2.0", "larger sibling of the packaged 135M"),
    ("HuggingFaceTB/SmolLM3-3B", "Apache-2.0", "the size between; thinking can be switched off"),
    ("Qwen/Qwen3-4B", "Apache-2.0", "the size between; thinking can be switched off"),
    ("Qwen/Qwen3-4B-Instruct-2507", "Apache-2.0", "newer than Qwen3-4B; answers at once"),
    ("Qwen/Qwen2.5-7B-Instruct", "Apache-2.0", "answers at once"),
    ("Qwen/Qwen3-8B", "Apache-2.0", "newer than the 7B; thinking can be switched off"),
    ("microsoft/phi-4", "MIT", "14B of another maker; no tools in its template"),
    ("Qwen/Qwen3-14B", "Apache-2.0", "newer than Qwen2.5-14B; thinking can be switched off"),
    ("mistralai/Mistral-Small-24B-Instruct-2501", "Apache-2.0", "24B of another maker; answers at once"),
    ("Qwen/Qwen3-30B-A3B", "Apache-2.0", "a mixture: 3B of it at work on a token"),
    ("Qwen/Qwen3-30B-A3B-Instruct-2507", "Apache-2.0", "newer than Qwen3-30B-A3B; answers at once"),
)
"""Hub id, licence as its card names it, and why it is on the list beside its neighbours."""


@dataclass(frozen=True, slots=True)
class KnownBase:
    """A model by what decides whether it fits."""

    model: str
    """As `base model=…` takes it."""
    title: str
    license: str
    config: Mapping[str, object]
    why: str = ""
    on_hub: bool = False
    revision: str = ""
    """The commit on the hub that was looked up; empty: none was."""

    @property
    def parameters(self) -> int:
        """All of them."""
        return shape_of(self.config, 0).parameters


def known_bases(*, on_card: bool) -> tuple[KnownBase, ...]:
    """What may be proposed, the smallest first; models of the hub where a card would train them."""
    bases = [_packaged(name) for name in _PACKAGED]
    bases += [_hub(*entry) for entry in _ON_HUB] if on_card else []
    return tuple(sorted(bases, key=lambda base: base.parameters))


def known_base(model: str) -> KnownBase | None:
    """The model of this name by what is written down of it: a packaged one, by each of its names, or one of the known
    families by its hub id; None for any other."""
    if model in BUNDLED:
        return _packaged(model)
    entry = next((entry for entry in _ON_HUB if entry[0] == model), (model, "", ""))
    return _hub(*entry) if any(known.name == model for known in KNOWN_MODELS) else None


def own_model(folder: Path) -> KnownBase:
    """A folder of the user's. Raises BadInput for one without a config that can be read."""
    return KnownBase(str(folder), folder.name, "", read_config(folder), "serves the conversation here already")


def _packaged(name: str) -> KnownBase:
    model = BUNDLED[name]
    return KnownBase(name, model.title, model.license, model.config, "comes through the package index")


def _hub(name: str, license_: str, why: str) -> KnownBase:
    return KnownBase(name, name.rpartition("/")[2], license_, config_of(name), why, on_hub=True)
