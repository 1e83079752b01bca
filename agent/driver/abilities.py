"""What was found out about a driver: kept in HOME/driver-probe.json by the endpoint's model, and what follows from it.

A driver with a short context is sent fewer turns and tools, and one that no schema holds chooses its tools by its own
tool calling.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tunesmith.agent.commands.settings import DriverSettings
from tunesmith.agent.driver.history import Window
from tunesmith.memory.files import atomic_write

ROUTING_TOKENS = 6000
"""Context that the fixed page of examples, some words and an answer need."""
_FILE = "driver-probe.json"


def keep(home: Path, model: str, chosen: DriverSettings, abilities: Mapping[str, object]) -> None:
    """Write down what a driver of these settings can do."""
    atomic_write(home / _FILE, json.dumps({model: {**abilities, "of": _named(chosen)}}, indent=1))


def is_routed(home: Path, chosen: DriverSettings) -> bool:
    """Whether a schema-bound request chooses each step: as set, else by what the driver's examination found."""
    if chosen.routing != "auto":
        return chosen.routing
    return not any(
        one.get("level") == "native" and one.get("of") == _named(chosen) for one in _all_found(home).values()
    )


def _named(chosen: DriverSettings) -> str:
    return f"{chosen.endpoint} {chosen.name}".strip() if chosen.endpoint else chosen.model


def window_for(home: Path, chosen: DriverSettings) -> Window:
    """How much the driver of these settings can be sent, before it is there to be asked."""
    found = next((one for one in _all_found(home).values() if one.get("of") == _named(chosen)), {})
    context = found.get("context_tokens")
    usual = Window() if chosen.endpoint else Window(chosen.context_tokens)
    known = context if isinstance(context, int) else usual.context_tokens
    return Window(known, thinks=found.get("thinks") is True)


def window_of(home: Path, model: str, before: Window) -> Window:
    """How much a driver can be sent, by what the probe found; what is known of it already where nothing was."""
    found = _found(home, model)
    context = found.get("context_tokens")
    return replace(
        before,
        context_tokens=context if isinstance(context, int) else before.context_tokens,
        thinks=found.get("thinks") is True or before.thinks,
    )


def can_be_routed(home: Path, model: str) -> bool:
    """Whether the tool may be chosen by a schema-bound request: unless the probe saw that a schema does not hold it."""
    abilities = _found(home, model)
    context = abilities.get("context_tokens")
    short = isinstance(context, int) and context < ROUTING_TOKENS
    return abilities.get("json_schema", True) is True and not short


def _found(home: Path, model: str) -> dict[str, object]:
    return _all_found(home).get(model, {})


def _all_found(home: Path) -> dict[str, dict[str, object]]:
    try:
        by_model: dict[str, dict[str, object]] = json.loads((home / _FILE).read_text())
    except (OSError, ValueError):
        return {}
    return by_model
