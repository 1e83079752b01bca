"""The servers on the books, each with the run that made what it serves."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from difflib import get_close_matches

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import FAILED, RUNNING, STOPPED
from tunesmith.memory.store import Store
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.server_log import telling_line
from tunesmith.tools.serving.servers import Server


def status(store: Store) -> list[dict[str, object]]:
    """Servers on the books, the deployed ones first; one of those may be down."""
    running = servers.list_servers(store.home)
    return [_line(store, server) for server in sorted(running, key=lambda s: s.role != servers.DEPLOYED)]


def stop(store: Store) -> list[dict[str, object]]:
    """Stop every server that tunesmith started, and return them as they were."""
    lines = status(store)
    servers.stop_all(store.home)
    return lines


_ARMS = ("quantized", "merged", "adapter")
"""What can be served of a run, the last made first."""
_LISTED = 5
"""Of what could be served; the newest are what is looked for."""


def could_serve(store: Store) -> list[dict[str, object]]:
    """The newest runs that hold a model which can be served, each with its arms."""
    could: list[dict[str, object]] = [
        {"run": run.id, "name": run.name, "arms": arms} for run in store.runs() if (arms := _arms(store, run.id))
    ]
    return could[:_LISTED]


def how_to_serve(run: Mapping[str, object], prefix: str = "tunesmith ") -> str:
    """One of these runs in a line, with what is typed."""
    arms = [str(arm) for arm in run["arms"]] if isinstance(run["arms"], list) else []
    return f"{run['name']}, {' or '.join(arms)}: `{prefix}serve {run['run']}`"


def to_serve(store: Store, what: str) -> dict[str, object]:
    """The fields of a deployment that some words mean: an arm, a run, or a model by the name of its run or its base.

    Raises BadInput where they mean nothing that can be served.
    """
    if what in _ARMS:
        return {"arm": what}
    for run in store.runs():
        bases = [
            str(one.meta.get(key, "")).lower() for one in store.artifacts(run.id, "base") for key in ("name", "source")
        ]
        if what == run.id or what.lower() in (run.name.lower(), *bases):
            if arms := _arms(store, run.id):
                return {"run": run.id, "arm": arms[0]}
            if what == run.id:
                raise BadInput(f"{run.id} has no tuned model yet; `tunesmith show {run.id}` says how far it is")
    could = [how_to_serve(run) for run in could_serve(store)]
    near = get_close_matches(what, [*_ARMS, "status", "stop"], 1)
    hint = f"did you mean {near[0]!r}?" if near else "; ".join(could) or "nothing was taught yet: `tunesmith demo` does"
    raise BadInput(f"{what[:80]!r} is no arm, run or model that was taught here; {hint}")


def _arms(store: Store, run: str) -> list[str]:
    kinds = {artifact.kind for artifact in store.artifacts(run)}
    return [arm for arm in _ARMS if arm in kinds]


def _line(store: Store, server: Server) -> dict[str, object]:
    artifact = server.facts.artifact or None
    rows = store.read(
        "SELECT artifact, run, step FROM artifacts WHERE artifact = ?1 OR (?1 IS NULL AND sha256 = ?2) LIMIT 1",
        artifact,
        server.spec.weights_sha256,
    )
    return {
        "server": server.id,
        "role": server.role,
        "url": server.url,
        "model": server.facts.model or server.model,
        "pid": server.pid if server.runs else None,
        "healthy": servers.healthy(server),
        "restarts": server.restarts.count,
        "down": _down(server),
        "key_file": str(server.key_file),
        "log": str(server.log),
        "ends_in_seconds": _lease_left(server),
        "artifact": rows[0]["artifact"] if rows else artifact,
        "run": rows[0]["run"] if rows else None,
        "step": rows[0]["step"] if rows else None,
    }


def _down(server: Server) -> str:
    """Why a deployed server does not run, and what brings it back; empty while its parent lives."""
    if server.runs:
        return ""
    happened = server.restarts
    if not happened.gave_up:
        return "its parent has ended, as by a boot; the next start of tunesmith brings it back"
    last_line = telling_line(server.log) if not happened.port_lost and server.log.is_file() else ""
    # "started again" is the supervisor's own last word, not the engine's
    cause = f" ({last_line})" if last_line and "started again" not in last_line else ""
    remedy = "`tunesmith deploy` serves it again"
    return f"it is not started again: {happened.gave_up}{cause}; its log is {server.log}; {remedy}"


def bring_back(store: Store) -> list[str]:
    """Start deployed servers that are down again, and say so, a line each."""
    lines = []
    for server, why_not in servers.bring_back(store.home):
        model = server.facts.model or server.model
        if why_not:
            lines.append(
                f"{model} was deployed at {server.url} and stays down: {why_not}; `tunesmith deploy` serves it "
                "elsewhere, with another key"
            )
        else:
            lines.append(f"{model} was deployed and had ended, as by a boot: it is starting at {server.url}/v1 again")
        event = "server.given_up" if why_not else "server.brought_back"
        store.event(event, run=server.facts.run or None, server=server.id, model=model, why=why_not)
    return lines


def _lease_left(server: Server) -> float | None:
    """Seconds until a server ends that nobody uses; None for a deployed one, which has no such end."""
    if server.role == servers.DEPLOYED:
        return None
    try:
        lease_s = float(json.loads(server.record.read_text())["lease_s"])
        return round(max(0.0, server.record.with_suffix(".lease").stat().st_mtime + lease_s - time.time()), 1)
    except (OSError, ValueError, KeyError):  # it is being stopped right now
        return 0.0


def stop_orphans(store: Store) -> list[str]:
    """Stop measuring servers of steps that ended badly, so that they do not hold memory until their lease ends."""
    if store.steps(status=RUNNING):
        return []
    stopped = []
    for server in servers.list_servers(store.home, role=servers.BENCH):
        owner = json.loads(server.record.read_text()).get("owner")
        ended = store.read("SELECT 1 FROM steps WHERE step = ? AND status IN (?, ?)", owner, FAILED, STOPPED)
        if ended:
            servers.stop(server)
            stopped.append(f"{server.model} on port {server.port}, left by {owner}")
    return stopped
