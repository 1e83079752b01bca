"""`tunesmith doctor` names what can leave this machine by the settings, and what did by the records; never a key."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.fixtures.network import PROXY_VARIABLES, hears
from tunesmith.agent.commands.settings import DriverSettings, Settings, load
from tunesmith.agent.driver.endpoint import Driver, model_of
from tunesmith.agent.probe import NoVerdict, examine
from tunesmith.agent.what_leaves import Channel, leaving, leaving_view
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.judge_settings import JudgeSettings
from tunesmith.tools.serving.addresses import read_address
from tunesmith.tools.serving.client import ChatClient, ChatRequest
from tunesmith.tools.serving.endpoint import Endpoint
from tunesmith.tools.serving.traffic import ContactLog, Traffic, contacts

KEY = "the-key-SECRET"
FAR = "http://models.example:8000/v1"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXY_VARIABLES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def shown(settings: Settings, store: Store) -> str:
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(leaving_view(leaving(settings, store)))
    return console.export_text()


def channel(settings: Settings, store: Store, what: str) -> Any:
    return next(one for one in leaving(settings, store).can if one.what == what)


def test_by_default_nothing_is_configured_to_leave(store: Store) -> None:
    found = leaving(Settings(home=store.home), store)
    assert {one.state for one in found.can} == {"off", "on request", "this machine"} and found.did == []
    assert "nothing has left this machine" in shown(Settings(home=store.home), store)


def test_endpoints_are_named_with_what_goes_there_and_in_what_shape(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def driver(**chosen: Any) -> Any:
        return channel(Settings(home=store.home, driver=DriverSettings(name="m", **chosen)), store, "driver")

    assert driver(endpoint="http://127.0.0.1:1/v1", key=KEY).state == "this machine"
    assert driver(endpoint="https://models.example/v1", key=KEY).state == "another machine"
    refused = driver(endpoint=FAR, key=KEY)
    assert refused.state == "refused" and "allow_plain_http" in refused.note
    allowed = driver(endpoint=FAR, key=KEY, allow_plain_http=True)
    assert allowed.to == "models.example:8000" and "can read them and the key" in allowed.note
    assert "can read them" in driver(endpoint=FAR).note and "the key" not in driver(endpoint=FAR).note
    assert driver(endpoint="http://me:pw@models.example/v1").state == "refused"
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@proxy.example:3128")
    assert "through your proxy proxy.example:3128" in driver(endpoint=FAR).note
    judge = JudgeSettings(endpoint=FAR, name="m", key_file="k")
    settings = Settings(home=store.home, judge=judge, driver=DriverSettings(endpoint=FAR, key=KEY))
    assert channel(settings, store, "judge").state == "refused"
    text = shown(settings, store) + json.dumps(asdict(leaving(settings, store)))
    assert KEY not in text and "secret" not in text and "pw" not in text


def test_the_environment_is_told_by_names_alone(tmp_path: Path) -> None:
    Store(tmp_path)
    settings = load(
        {
            "TUNESMITH_HOME": str(tmp_path), "WANDB_API_KEY": KEY, "MLFLOW_TRACKING_URI": "http://m",
            "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "https://me:pw@mirror.example/",
        }
    )  # fmt: skip
    online = load({"TUNESMITH_HOME": str(tmp_path), "HF_ENDPOINT": "https://me:p/w@mirror.example/"})
    store = Store(tmp_path)
    assert "MLFLOW_TRACKING_URI, WANDB_API_KEY" in channel(settings, store, "trackers").note
    assert channel(settings, store, "hub") == Channel("hub", "off", "…@mirror.example", "HF_HUB_OFFLINE is set")
    told = channel(online, store, "hub")
    assert (told.state, told.to) == ("refused", "") and "holds a user or password" in told.note
    assert KEY not in settings.model_dump_json() and "pw" not in settings.model_dump_json()
    assert "p/w" not in online.model_dump_json() and "p/w" not in shown(online, store)


def test_what_the_file_allows_of_its_endpoint_it_allows_of_no_other(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(
        f'[driver]\nendpoint = "{FAR}"\nkey_env = "K"\nallow_plain_http = true\nname = "m"\n'
    )
    home = {"TUNESMITH_HOME": str(tmp_path), "K": KEY}
    assert Driver(load(home)).ensure().url == FAR
    assert Driver(load(home | {"TUNESMITH_DRIVER": FAR})).ensure().url == FAR
    with pytest.raises(BadInput, match="allow_plain_http"):
        Driver(load(home | {"TUNESMITH_DRIVER": "http://other.example/v1"})).ensure()


def test_calls_are_recorded_by_host_and_amount(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a proxy on this machine, so that nothing really leaves it."""
    messages = [{"role": "user", "content": "private words"}]
    settings = Settings(home=store.home, driver=DriverSettings(endpoint=FAR, name="m"))

    async def talk(model: Any) -> None:
        for _ in range(2):
            await model.client.chat.completions.create(model="m", messages=messages)
        await model.client.close()

    async def judge() -> None:
        log = ContactLog(store.home, read_address(FAR), "judge", run="r1", step="s1")
        async with ChatClient(FAR.removesuffix("/v1"), "", recorder=log) as chat:
            await chat.complete_many(
                [ChatRequest(str(n), "m", messages, 8) for n in range(5)], concurrency=2, on_result=lambda r: None
            )

    with hears() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        asyncio.run(talk(model_of(Driver(settings).ensure())))
        asyncio.run(judge())
    asked = {one.purpose: one for one in contacts(store)}
    assert (asked["driver"].requests, asked["judge"].requests) == (3, 5), "one asks for its context"
    assert (asked["driver"].contacts, asked["judge"].contacts) == (2, 1)
    assert all(not one.uncounted and one.host == "models.example:8000" for one in asked.values())
    assert proxy.requests[0].startswith(f"GET {FAR}/models ")
    bodies = [request.partition("\n\n")[2].lstrip("\n") for request in proxy.requests]
    assert asked["driver"].sent_bytes == sum(len(body) for body in bodies[:3])
    assert asked["judge"].sent_bytes == sum(len(body) for body in bodies[3:])
    assert asked["judge"].received_bytes > 0 and asked["driver"].received_bytes > 0
    events = [row["data"] for row in store.read("SELECT data FROM events")]
    assert not any("private" in data or "Bearer" in data for data in events)
    assert "5 requests" in shown(settings, store) and "models.example:8000" in shown(settings, store)


def test_every_request_of_an_examination_is_recorded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(Settings(home=store.home, driver=DriverSettings(endpoint=FAR, name="m")))
    with hears() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        with pytest.raises(NoVerdict, match="could not be read"):  # what answers is no model
            examine(driver.ensure(), driver.seen()[1])
    [one] = contacts(store)
    assert (one.host, one.purpose) == ("models.example:8000", "driver")
    sent = len(proxy.requests)
    assert one.requests and one.requests >= sent and sent > 2, "its context, and more than one task"


def test_a_contact_that_was_killed_is_seen_as_not_counted_to_its_end(store: Store) -> None:
    log = ContactLog(store.home, read_address(FAR), "judge")
    log.opened()
    log.opened()
    log.closed(Traffic(3, 10, 20))
    (one,) = contacts(store)
    assert (one.contacts, one.requests, one.uncounted) == (2, 3, 1)
    assert "1 contacts more were not counted" in shown(Settings(home=store.home), store)


def test_requests_to_this_machine_are_no_contact(store: Store) -> None:
    with hears() as server:
        settings = Settings(home=store.home, driver=DriverSettings(endpoint=f"{server.url()}/v1", name="m"))

        async def ask(endpoint: Endpoint) -> None:
            async with endpoint.client(timeout_s=5) as client:
                await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])

        asyncio.run(ask(Driver(settings).ensure()))
    assert contacts(store) == []
