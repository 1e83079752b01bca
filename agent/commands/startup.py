"""Opening the store at the start of a command, and one line for what nobody expected."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tunesmith.memory.errors import BadInput, StepFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tunesmith.agent.commands.output import Output
    from tunesmith.agent.commands.settings import Settings
    from tunesmith.memory.errors import TunesmithError
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
    store.tell = out.say
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
    except Exception as error:  # nothing there keeps the program from starting, nor what is whole from being read
        return [f"what ended while nobody looked could not be written down: {unexpected(error)}"]


def unexpected(error: Exception) -> str:
    """`explained` as one line. Raises nothing."""
    return str(explained(error))


def explained(error: Exception) -> TunesmithError:
    """What an error comes from: a full disk, a damaged store, or a defect of ours, whose traceback goes to a file.

    Raises nothing.
    """
    from tunesmith.agent.commands.error_log import keep_traceback
    from tunesmith.agent.commands.settings import home_of
    from tunesmith.tools.core.disk import concerns_disk, trouble

    with contextlib.suppress(OSError):  # the home itself may be what fails
        if concerns_disk(error) and (why := trouble(home_of(), error)):
            return StepFailed(why)
    if damage := _damage(error, home_of):
        return BadInput(damage)
    # a line or two
    what = f"{type(error).__name__}: {str(error)[:300] or 'no message'}"
    return StepFailed(f"unexpected {what}; {keep_traceback(error, home_of)}")


def _damage(error: Exception, home_of: Callable[[], Path]) -> str:
    """How the store is damaged where an error comes from that, also of one that met what was made of it."""
    from tunesmith.memory.damage import StoreDamaged
    from tunesmith.memory.store import Store

    if isinstance(error, StoreDamaged):
        return str(error)
    try:
        home = home_of()
        if (home / "tunesmith.db").is_file():
            with contextlib.closing(Store(home)) as store:
                store.refuse_damage()
    except (StoreDamaged, BadInput) as damage:
        return str(damage)
    except Exception:  # it cannot be looked at
        return ""
    return ""
