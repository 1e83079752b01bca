"""What can leave this machine by the present settings, and what did leave by the records.

`docs/what-leaves.md` says the same in a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.commands.settings import DriverSettings, Settings
from tunesmith.agent.queries.answer import day
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import DONE
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import clip, size, visible
from tunesmith.tools.evaluation.judge_settings import JudgeSettings
from tunesmith.tools.models.base import source_of
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.hub_client import NO_USER
from tunesmith.tools.serving.addresses import Address, read_address, refuse_key_in_clear, visible_address
from tunesmith.tools.serving.listeners import can_tell
from tunesmith.tools.serving.traffic import Contacts, contacts

OFF, HERE, ON_REQUEST, ELSEWHERE, REFUSED = "off", "this machine", "on request", "another machine", "refused"


@dataclass(frozen=True, slots=True)
class Channel:
    """A way out of this machine."""

    what: str
    state: str
    """off; this machine; on request; another machine; refused."""
    to: str
    """Host and port, or a host's address; empty where nothing is asked."""
    note: str


@dataclass(frozen=True, slots=True)
class Leaving:
    """Of `tunesmith doctor --json`."""

    can: list[Channel]
    did: list[Contacts]


def leaving(settings: Settings, store: Store) -> Leaving:
    """What can leave, and what did."""
    calls = [replace(one, host=clip(one.host, 100), purpose=clip(one.purpose, 100)) for one in contacts(store)]
    return Leaving(channels(settings), [*_downloads(settings, store), *calls])


def channels(settings: Settings) -> list[Channel]:
    """Every way out of this machine, in a fixed order."""
    network = settings.network
    trackers = f"set and ignored: {', '.join(network.trackers)}; " if network.trackers else ""
    return [
        _hub(settings),
        Channel("package index", ON_REQUEST, "", "`make setup`, and `base` of a bundled model, ask pip's index"),
        _endpoint("driver", settings.driver, settings.driver.key, "your conversation, and what its tools look up"),
        _endpoint("judge", settings.judge, settings.judge.key_file, "the answers that are judged, with their cases"),
        Channel("teacher", HERE, "", "it is served here like every model; no endpoint can be named"),
        Channel("trackers", OFF, "", f"{trackers}a training reports to none (report_to=none)"),
        Channel("vLLM usage statistics", OFF, "", "servers start with VLLM_NO_USAGE_STATS=1"),
        Channel(
            "Hugging Face telemetry", OFF, "", "whatever loads its libraries starts with HF_HUB_DISABLE_TELEMETRY=1"
        ),
        _ray(settings),
        Channel("tunesmith", OFF, "", "it tells nobody that it is used"),
    ]


def _hub(settings: Settings) -> Channel:
    hub = visible_address(settings.network.hub)
    if settings.network.hub_offline:
        return Channel("hub", OFF, hub, "HF_HUB_OFFLINE is set")
    if "@" in settings.network.hub:
        return Channel("hub", REFUSED, "", NO_USER)
    words = "what you name of it or say yes to, by its name, with your token where you are logged in"
    with suppress(BadInput):  # an address that is none reaches nothing
        if proxy := read_address(settings.network.hub).proxy_place:
            words = f"{words}; through your proxy {proxy}"
    return Channel("hub", ON_REQUEST, hub, words)


def _ray(settings: Settings) -> Channel:
    chosen = settings.ray
    if not chosen.address:
        return Channel("Ray", HERE, "", "not configured: every step is carried out here")
    words = (
        f"what a step with `on: ray` works on, with its run's records, by the storage {visible_address(chosen.storage)}"
    )
    return _way("Ray", chosen.head, words, "token", "a tunnel's other end may be another machine")


def _endpoint(section: str, chosen: DriverSettings | JudgeSettings, key: str, words: str) -> Channel:
    """`key`: anything that says that there is one."""

    def address() -> Address:
        named = read_address(chosen.endpoint, f"settings.toml, [{section}]: endpoint")
        refuse_key_in_clear(named, key, allowed=chosen.allow_plain_http, section=section)
        return named

    if not chosen.endpoint:
        return Channel(section, HERE, "", "served here")
    return _way(section, address, words, key, "where that program sends them is its own matter")


def _way(what: str, named: Callable[[], Address], words: str, key: str, beyond: str) -> Channel:
    """To an address of the settings; `beyond` is said of one on this machine."""
    try:
        address = named()
        proxy = address.proxy_place
    except BadInput as refused:
        return Channel(what, REFUSED, "", str(refused))
    if address.is_loopback:
        return Channel(what, HERE, address.place, "; ".join([words, beyond, *([_to_whom()] if key else [])]))
    return Channel(what, ELSEWHERE, address.place, "; ".join(_on_the_way(address, words, key, proxy)))


def _to_whom() -> str:
    """Which program of this machine is sent a key."""
    if can_tell():
        return "the key goes only to a program of yours or of root"
    return "the key goes to whatever program has that port: this system does not say whose it is"


def _on_the_way(address: Address, words: str, key: str, proxy: str) -> Iterator[str]:
    yield words
    if address.is_in_clear:
        yield f"over plain http: everybody on the way can read them{' and the key' if key else ''}"
    if proxy:
        yield f"through your proxy {proxy}"


def _downloads(settings: Settings, store: Store) -> Iterator[Contacts]:
    """Models and data sets that steps fetched. What was sent for them is their names; it was not counted."""
    for step in reversed(store.steps(status=DONE)):
        if step.stage == "base" and isinstance(model := step.request.get("model"), str):
            try:
                source = source_of(model)
            except BadInput:  # a name of an earlier version: nothing was fetched by it
                continue
            host = {"hub": settings.network.hub, "bundled": "package index"}.get(source)
            received = BUNDLED[model].download_bytes if source == "bundled" else _bytes(step.report)
        elif step.stage == "import" and str(step.request.get("source", "")).startswith("hub:"):
            host, model, received = settings.network.hub, str(step.request["source"]), _bytes(step.report)
        else:
            continue
        if host:
            yield Contacts(
                visible_address(host).rpartition("://")[2],
                f"{step.id} fetched {clip(model, 100)}",
                last_at=step.finished_at or 0.0,
                contacts=1,
                received_bytes=received,
            )


def _bytes(report: object) -> int | None:
    number = report.get("bytes") if isinstance(report, dict) else None
    return number if isinstance(number, int) else None


def leaving_view(report: Leaving) -> RenderableType:
    """The same for a terminal."""
    can = [[one.what, one.state, visible(one.to), visible(one.note)] for one in report.can]
    sections = [render.rows_table(["what can leave", "state", "to", "what, and when"], can)]
    if report.did:
        did = [[one.host, one.purpose, day(one.last_at), _amount(one)] for one in report.did]
        sections.append(render.rows_table(["what did leave, to", "for", "last", "how much"], did))
    else:
        sections.append(render.plain("By the records of this home nothing has left this machine."))
    return Group(*sections)


def _amount(one: Contacts) -> str:
    received = f"{size(one.received_bytes)} received" if one.received_bytes is not None else "size not recorded"
    if one.requests is None:
        return received
    lacking = f"; {one.uncounted} contacts more were not counted to their end" if one.uncounted > 0 else ""
    return f"{one.requests} requests, {size(one.sent_bytes or 0)} sent, {received}{lacking}"
