"""Where the user stands: what the records and the conversation say is at hand, which tells what is likely asked."""

from __future__ import annotations

from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries.answer import ordinary
from tunesmith.agent.queries.following import next_stages
from tunesmith.agent.words.head import Moment
from tunesmith.memory.records import RUNNING
from tunesmith.tools.serving import servers


def moment(deps: TurnDeps) -> Moment:
    """The first that holds of: a plan proposed, a step at work, no run, one that broke off, a model served, steps left.

    A price that waits is not told by this: its question takes the words itself.
    """
    store, run = deps.store, deps.focused_run()
    if deps.draft is not None:
        return "planned"
    if store.steps(status=RUNNING):
        return "running"
    if run is None and not ordinary(store):
        return "empty"
    if run is not None and store.broken_off(run.id) is not None:
        return "broken_off"
    if servers.list_servers(store.home, role=servers.DEPLOYED):
        return "served"
    return "midway" if run is not None and next_stages(store, run) else "finished"
