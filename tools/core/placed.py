"""Where a step is carried out: here, or on the machine that settings.toml names."""

from __future__ import annotations

from typing import Literal

from tunesmith.tools.core.stage import Request


class PlacedRequest(Request):
    """Of a stage whose work may be done on another machine."""

    on: Literal["here", "ray"] = "here"
    """here: on this machine; ray: on the one that settings.toml names under [ray]."""
