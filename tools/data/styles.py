"""How a message is written whatever it is about: six axes that no answer shows, drawn and told to the writer."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import yaml

from tunesmith.tools.data.draw import in_turn


@lru_cache(maxsize=1)
def axes() -> dict[str, list[str]]:
    """Axis → what is dealt of it, each as often as its weight; empty: as the writer likes."""
    document = yaml.safe_load((files("tunesmith.prompts") / "styles.yaml").read_text("utf-8"))
    return {name: [*[""] * int(axis["plain"]), *map(str, axis["values"])] for name, axis in document.items()}


def style(seed: int, turn: int) -> str:
    """The style of message number `turn`, as a writer is told it; empty: nothing is asked of it."""
    drawn = (in_turn(dealt, f"{seed}/style/{name}", turn) for name, dealt in axes().items())
    return "; ".join(filter(None, drawn))
