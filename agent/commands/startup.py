"""Opening the store at the start of a command, and one line for what nobody expected."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tunesmith.memory.errors import BadInput, StepFailed

if TYPE_CHECKING:
    from pathlib import Path

    from tunesmith.agent.commands.output import Output
    from tunesmith.agent.commands.settings import Settings
    from tunesmith.memory.store import Store


def open_store(settings: Settings, out: Output) -> Store:
    """The store, after what died while nobody looked was found and told. Raises BadInput, StepFailed.

    One whose disk is full or read-only is opened to be read, and says so; whatever would write into it is refused.
    """
    import sqlite3

    try:
        store = _opened(settings.home)
    except (OSError, sqlite3.Error) as error:  # no rights, no disk: said in a sentence, with what to do
        from tunesmith.tools.core.disk import trouble

        home = settings.home
        if place := next((one for one in (home, *home.parents) if one.exists() and not one.is_dir()), None):
            raise BadInput(f"{home} cannot be a home, for {place} is no folder; set TUNESMITH_HOME to one") from None
        if why := trouble(home, error):
            raise StepFailed(why) from None
        raise BadInput(f"cannot open the store in {settings.home}: {error}; set TUNESMITH_HOME to a folder") from None
    if store.unwritable:
        out.say(f"nothing is recorded now: {store.unwritable}")
        return store
    if store.is_new and (settings.home / "runs").is_dir():
        from tunesmith.agent.commands.recover import left_behind

        if left := left_behind(store):
            out.say(left)
    for line in _recovered(store):
        out.say(line)
    return store


def _opened(home: Path) -> Store:
    import sqlite3

    from tunesmith.memory.store import Store
    from tunesmith.memory.unwritable import may_write

    path = home / "tunesmith.db"
    if path.is_file() and not may_write(path):
        from tunesmith.tools.core.disk import trouble

        if why := trouble(home):  # SQLite would open it all the same, and fail at the first word to write
            return Store(home, unwritable=why)
    try:
        return Store(home)
    except (OSError, sqlite3.Error) as error:  # a store that can be read is opened to read
        from tunesmith.tools.core.disk import trouble

        if path.is_file() and (why := trouble(home, error)):
            return Store(home, unwritable=why)
        raise


def _recovered(store: Store) -> list[str]:
    """What was found; where it cannot be written down that is said, and whoever asked may go on reading."""
    from tunesmith.agent.commands.recovery import recover

    try:
        return recover(store)
    except Exception as error:  # a defect there must not keep the program from starting
        return [f"what ended while nobody looked could not be written down: {unexpected(error)}"]


def unexpected(error: Exception) -> str:
    """One line about a full disk, or about a defect of ours, whose traceback goes to a file. Raises nothing."""
    from tunesmith.agent.commands.error_log import keep_traceback
    from tunesmith.agent.commands.settings import home_of
    from tunesmith.tools.core.disk import concerns_disk, trouble

    with contextlib.suppress(OSError):  # the home itself may be what fails
        if concerns_disk(error) and (why := trouble(home_of(), error)):
            return why
    # a line or two
    return f"unexpected {type(error).__name__}: {str(error)[:300] or 'no message'}; {keep_traceback(error, home_of)}"
