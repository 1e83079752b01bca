"""What can leave this machine by the present settings, and what did leave by the records.

`docs/what-leaves.md` says the same in a page.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypedDict

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.commands.settings import Settings
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import DONE
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import clip, size, visible
from tunesmith.tools.models.base import source_of
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.serving.addresses import Address, read_address, refuse_key_in_clear, visible_address
from tunesmith.tools.serving.traffic import contacts

OFF, HERE, ON_REQUEST, ELSEWHERE, REFUSED = "off", "this machine", "on request", "another machine", "refused"


class Channel(TypedDict):
    """A way out of this machine."""

    what: str
    state: str
    """off; this machine; on request; another machine; refused."""
    to: str
    """Host and port, or a host's address; empty where nothing is asked."""
    note: str


class Contacted(TypedDict):
    """What was asked of one host for one purpose; counts are None where they were not kept."""

    host: str
    purpose: str
    last_at: float
    contacts: int
    requests: int | None
    sent_bytes: int | None
    received_bytes: int | None
    uncounted: int


class Leaving(TypedDict):
    """Of `tunesmith doctor --json`."""

    can: list[Channel]
    did: list[Contacted]


def leaving(settings: Settings, store: Store) -> Leaving:
    """What can leave, and what did."""
    return {"can": channels(settings), "did": [*_downloads(settings, store), *_calls(store)]}


def channels(settings: Settings) -> list[Channel]:
    """Every way out of this machine, in a fixed order."""
    network = settings.network
    trackers = f"set and ignored: {', '.join(network.trackers)}; " if network.trackers else ""
    return [
        _hub(settings),
        _channel("package index", ON_REQUEST, "", "`make setup`, and `base` of a bundled model, ask pip's index"),
        _driver(settings),
        _judge(settings),
        _channel("teacher", HERE, "", "it is served here like every model; no endpoint can be named"),
        _channel("trackers", OFF, "", f"{trackers}a training reports to none (report_to=none)"),
        _channel("vLLM usage statistics", OFF, "", "servers start with VLLM_NO_USAGE_STATS=1"),
        _channel(
            "Hugging Face telemetry", OFF, "", "workers start with HF_HUB_DISABLE_TELEMETRY=1; trl's goes the same way"
        ),
        _ray(settings),
        _channel("tunesmith", OFF, "", "it tells nobody that it is used"),
    ]


def _channel(what: str, state: str, to: str, note: str) -> Channel:
    return {"what": what, "state": state, "to": to, "note": note}


def _hub(settings: Settings) -> Channel:
    hub = visible_address(settings.network.hub)
    if settings.network.hub_offline:
        return _channel("hub", OFF, hub, "HF_HUB_OFFLINE is set")
    return _channel(
        "hub",
        ON_REQUEST,
        hub,
        "what you name of it or say yes to, by its name, with your token where you are logged in",
    )


def _driver(settings: Settings) -> Channel:
    chosen = settings.driver
    if not chosen.endpoint:
        return _channel("driver", HERE, "", "served here")
    words = "your conversation, and what its tools look up"
    return _endpoint("driver", chosen.endpoint, chosen.key, words, allowed=chosen.allow_plain_http)


def _judge(settings: Settings) -> Channel:
    chosen = settings.judge
    if not chosen.endpoint:
        return _channel("judge", HERE, "", "served here")
    key = "named" if chosen.key_file else ""
    words = "the answers that are judged, with their cases"
    return _endpoint("judge", chosen.endpoint, key, words, allowed=chosen.allow_plain_http)


def _ray(settings: Settings) -> Channel:
    chosen = settings.ray
    if not chosen.address:
        return _channel("Ray", HERE, "", "not configured: every step is carried out here")
    words = (
        f"what a step with `on: ray` works on, with its run's records, by the storage {visible_address(chosen.storage)}"
    )
    try:
        address = chosen.head()
        proxy = address.proxy_place
    except BadInput as refused:
        return _channel("Ray", REFUSED, "", str(refused))
    if address.is_loopback:
        return _channel("Ray", HERE, address.place, f"{words}; a tunnel's other end may be another machine")
    return _channel("Ray", ELSEWHERE, address.place, "; ".join(_on_the_way(address, words, "token", proxy)))


def _endpoint(section: str, url: str, key: str, words: str, *, allowed: bool) -> Channel:
    try:
        address = read_address(url, f"settings.toml, [{section}]: endpoint")
        refuse_key_in_clear(address, key, allowed=allowed, section=section)
        proxy = address.proxy_place
    except BadInput as refused:
        return _channel(section, REFUSED, "", str(refused))
    if address.is_loopback:
        return _channel(section, HERE, address.place, f"{words}; where that program sends them is its own matter")
    return _channel(section, ELSEWHERE, address.place, "; ".join(_on_the_way(address, words, key, proxy)))


def _on_the_way(address: Address, words: str, key: str, proxy: str) -> Iterator[str]:
    yield words
    if address.is_in_clear:
        yield f"over plain http: everybody on the way can read them{' and the key' if key else ''}"
    if proxy:
        yield f"through your proxy {proxy}"


def _downloads(settings: Settings, store: Store) -> Iterator[Contacted]:
    """Models and data sets that steps fetched. What was sent for them is their names; it was not counted."""
    for step in reversed(store.steps(status=DONE)):
        if step.stage == "base" and isinstance(model := step.request.get("model"), str):
            try:
                source = source_of(model)
            except BadInput:
                continue
            host = {"hub": settings.network.hub, "bundled": "package index"}.get(source)
            received = BUNDLED[model].download_bytes if source == "bundled" else _bytes(step.report)
        elif step.stage == "import" and str(step.request.get("source", "")).startswith("hub:"):
            host, model, received = settings.network.hub, str(step.request["source"]), _bytes(step.report)
        else:
            continue
        if host:
            yield {
                "host": visible_address(host).rpartition("://")[2],
                "purpose": f"{step.id} fetched {clip(model, 100)}",
                "last_at": step.finished_at or 0.0,
                "contacts": 1,
                "requests": None,
                "sent_bytes": None,
                "received_bytes": received,
                "uncounted": 0,
            }


def _bytes(report: object) -> int | None:
    number = report.get("bytes") if isinstance(report, dict) else None
    return number if isinstance(number, int) else None


def _calls(store: Store) -> Iterator[Contacted]:
    for one in contacts(store):
        yield {
            "host": clip(one.host, 100),
            "purpose": clip(one.purpose, 100),
            "last_at": one.last_at,
            "contacts": one.contacts,
            "requests": one.requests,
            "sent_bytes": one.sent_bytes,
            "received_bytes": one.received_bytes,
            "uncounted": one.uncounted,
        }


def leaving_view(report: Leaving) -> RenderableType:
    """The same for a terminal."""
    can = [[one["what"], one["state"], visible(one["to"]), visible(one["note"])] for one in report["can"]]
    sections = [render.rows_table(["what can leave", "state", "to", "what, and when"], can)]
    if report["did"]:
        did = [[one["host"], one["purpose"], _when(one["last_at"]), _amount(one)] for one in report["did"]]
        sections.append(render.rows_table(["what did leave, to", "for", "last", "how much"], did))
    else:
        sections.append(render.plain("By the records of this home nothing has left this machine."))
    return Group(*sections)


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _amount(one: Contacted) -> str:
    received = f"{size(one['received_bytes'])} received" if one["received_bytes"] is not None else "size not recorded"
    if one["requests"] is None:
        return received
    lacking = f"; {one['uncounted']} contacts more were not counted to their end" if one["uncounted"] > 0 else ""
    return f"{one['requests']} requests, {size(one['sent_bytes'] or 0)} sent, {received}{lacking}"
