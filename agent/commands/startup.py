"""Opening the store at the start of a command, and one line for what nobody expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.memory.errors import BadInput, StepFailed, disk_is_full

if TYPE_CHECKING:
    from pathlib import Path

    from tunesmith.agent.commands.output import Output
    from tunesmith.agent.commands.settings import Settings
    from tunesmith.memory.store import Store


def open_store(settings: Settings, out: Output) -> Store:
    """The store, after what died while nobody looked was found and told. Raises BadInput, StepFailed."""
    import sqlite3

    from tunesmith.memory.store import Store

    try:
        store = Store(settings.home)
    except (OSError, sqlite3.Error) as error:
        if disk_is_full(error):
            raise StepFailed(_full(settings.home)) from None
        raise BadInput(f"cannot open the store in {settings.home}: {error}; set TUNESMITH_HOME to a folder") from None
    for line in _recovered(store):
        out.say(line)
    return store


def _recovered(store: Store) -> list[str]:
    """What was found; where it cannot be written down that is said, and whoever asked may go on reading."""
    from tunesmith.agent.commands.recovery import recover

    try:
        return recover(store)
    except Exception as error:
        return [f"what ended while nobody looked could not be written down: {unexpected(error)}"]


def unexpected(error: Exception) -> str:
    """One line about a full disk, or about a defect of ours, whose traceback goes to a file. Raises nothing."""
    from tunesmith.agent.commands.error_log import keep_traceback
    from tunesmith.agent.commands.settings import home_of

    if disk_is_full(error):
        return _full(home_of())
    return f"unexpected {type(error).__name__}: {str(error)[:300] or 'no message'}; {keep_traceback(error, home_of)}"


def _full(home: Path) -> str:
    import shutil

    from tunesmith.tools.core.format import size

    try:
        free = size(shutil.disk_usage(next(place for place in (home, *home.parents) if place.exists())).free)
    except OSError:
        free = "unknown how much"
    return f"the disk of {home} is full ({free} free); make room, or move TUNESMITH_HOME to a disk that has some"
