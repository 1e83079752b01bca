"""The driver's own server: when it may start, how much of a GPU it takes, and that it comes back within a turn."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.stub_driver import StubDriver
from tests.fixtures.tables import table
from tests.fixtures.thinking import OPENS, SWITCH, think
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.commands.settings import DriverSettings, Settings
from tunesmith.agent.driver.abilities import known
from tunesmith.agent.driver.chat import Chat
from tunesmith.agent.driver.endpoint import Driver, model_of
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import GIB
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.machine.processes import ProcessId
from tunesmith.tools.pipeline import driver_server
from tunesmith.tools.pipeline.driver_server import needed_memory
from tunesmith.tools.pipeline.run_step import price, propose
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace
from tunesmith.tools.serving import endpoint, servers
from tunesmith.tools.serving.budget import Place
from tunesmith.tools.serving.spec import ServerSpec

pytestmark = pytest.mark.heavy

STUB = str(FIXTURES / "stub_vllm.py")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    servers.stop_all(tmp_path / "home")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "driver-model")


@pytest.fixture
def driver(home: Path, model: Path) -> Iterator[Driver]:
    one = Driver(Settings(home=home, vllm=STUB, driver=DriverSettings(model=str(model), routing=False)))
    yield one
    one.close()


def running(store: Store, model: Path, peak_ram_bytes: int) -> str:
    """A step that this process seems to work on."""
    ws = Workspace(store, None, lambda event, **data: None)
    plan = price(ws, StepRequest("base", {"model": str(model)}, store.new_run("test")))
    priced = plan.model_copy(update={"estimate": plan.estimate.model_copy(update={"peak_ram_bytes": peak_ram_bytes})})
    step = propose(ws, priced)
    me = ProcessId.of(os.getpid())
    store.claim(step, needs_approval=False, pid=me.pid, pid_started=me.started, boot_id=me.boot_id)
    return step


def test_the_driver_does_not_start_into_a_step_that_needs_the_room(driver: Driver, home: Path, model: Path) -> None:
    step = running(Store(home), model, measure_machine(home).ram_total_bytes)
    with pytest.raises(BadInput, match=rf"waits until base \({step}\) has ended: it needs the memory"):
        driver.ensure()
    assert servers.list_servers(home) == []
    Store(home).fail(step, "over")
    assert driver.ensure().model == "driver-model"


def test_a_driver_that_is_served_already_answers_beside_any_step(driver: Driver, home: Path, model: Path) -> None:
    before = driver.ensure()
    running(Store(home), model, measure_machine(home).ram_total_bytes)
    assert driver.ensure() == before


@pytest.mark.parametrize("template", [SWITCH, OPENS])
def test_a_driver_with_a_switch_for_thoughts_is_served_without_them(
    driver: Driver, home: Path, model: Path, template: str
) -> None:
    think(model, template)
    driver.ensure()
    [server] = servers.list_servers(home, role=servers.DRIVER)
    assert server.spec.without_thoughts == (template == SWITCH)


def test_on_a_gpu_the_driver_takes_what_it_needs_and_no_more(tmp_path: Path) -> None:
    shape = {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2}
    folder = make_tiny_model(tmp_path / "coder", weight_bytes=3_100_000_000, **shape, head_dim=128)
    needed = needed_memory(folder, 8192).vram_bytes
    assert 5 * GIB <= needed <= 8 * GIB
    assert needed_memory(folder, 32768).vram_bytes > needed


@pytest.mark.parametrize("at_work", [False, True])
def test_a_server_that_waits_on_the_gpu_leaves_for_the_driver_unless_a_step_asks_it(
    driver: Driver, home: Path, model: Path, monkeypatch: pytest.MonkeyPatch, at_work: bool
) -> None:
    spec = ServerSpec(model_dir="/nowhere", served_name="base", device="cuda")
    waiting = servers.start(home, spec, vllm=STUB, log_path=home / "logs" / "log", owner="s1")
    monkeypatch.setattr(driver_server, "placed", lambda vllm, needed: Place("cuda", 1))
    if at_work:
        running(Store(home), model, 1)
    driver.ensure()
    assert (waiting.id in {server.id for server in servers.list_servers(home)}) is at_work


class Conversation:
    """A turn with a driver that calls `base` and, after its result, says a word."""

    def __init__(self, home: Path, model: Path, driver: Driver, tmp_path: Path) -> None:
        base = make_tiny_model(tmp_path / "base")
        (model / "call.json").write_text(json.dumps({"name": "base", "arguments": {"model": str(base), "run": None}}))
        self.prompt = f"take {base} as the base"
        self.home, self.driver = home, driver
        self.urls: list[str] = []
        self.leaves = True
        self.chat = Chat(
            TurnDeps(
                ws=Workspace(Store(home), None, self._emit),
                approver=lambda plan, step: Decision(True, "test"),
                show=lambda shown: None,
                start_pipeline=lambda plan: "",
                follow=True,
                endpoint=self._endpoint,
            )
        )

    def _emit(self, event: str, **data: Any) -> None:
        if event == "step.started" and data["stage"] == "base" and self.leaves:
            servers.stop_all(self.home, role=servers.DRIVER)

    def _endpoint(self) -> Any:
        endpoint = self.driver.ensure()
        self.urls.append(endpoint.url)
        return endpoint

    def turn(self) -> str:
        said: list[str] = []
        reply = self.chat.begin(self.prompt, lambda: model_of(self._endpoint()), said.append).result(60)
        self.chat.close()
        return reply.text


def test_a_driver_that_gave_way_is_back_for_the_words_after_the_step(
    driver: Driver, home: Path, model: Path, tmp_path: Path
) -> None:
    one = Conversation(home, model, driver, tmp_path)
    assert one.turn() == "It is done."
    assert len(set(one.urls)) == 2, "another server answered after the step"
    assert Store(home).artifacts("r1", "base")


def test_a_driver_that_stays_is_not_asked_for_again(driver: Driver, home: Path, model: Path, tmp_path: Path) -> None:
    one = Conversation(home, model, driver, tmp_path)
    one.leaves = False
    assert one.turn() == "It is done." and len(one.urls) == 1


def test_a_driver_that_cannot_come_back_ends_the_turn_in_codes_words(
    driver: Driver, home: Path, model: Path, tmp_path: Path
) -> None:
    one = Conversation(home, model, driver, tmp_path)

    def taken(event: str, **data: Any) -> None:
        Conversation._emit(one, event, **data)
        if event == "step.finished" and data["stage"] == "base":
            running(Store(home), tmp_path / "base", measure_machine(home).ram_total_bytes)

    object.__setattr__(one.chat.deps.ws, "emit", taken)
    with pytest.raises(BadInput, match="the driver waits until base"):
        one.turn()


def test_what_begins_where_the_driver_gave_way_to_it_is_said_by_code(
    driver: Driver, home: Path, model: Path, tmp_path: Path
) -> None:
    one = Conversation(home, model, driver, tmp_path)
    one.chat.deps.follow = False
    assert one.turn().startswith("base runs in the background") and len(one.urls) == 1


# The context of an endpoint


@table(
    ("listed", "context"),
    [
        ([{"id": "m", "max_model_len": 32768}], 32768),
        ([{"id": "m", "context_length": 16384}], 16384),
        ([{"id": "m", "max_context_length": 4096}], 4096),
        ([{"id": "m", "meta": {"n_ctx_train": 131072}}], 131072),
        ([{"id": "other", "max_model_len": 1}, {"id": "m", "max_model_len": 32768}], 32768),
        ([{"id": "its-only-one", "max_model_len": 32768}], 32768),
        ([{"id": "other", "max_model_len": 1}, {"id": "another", "max_model_len": 2}], 8192),
        ([{"id": "m"}], 8192),
        ([{"id": "m", "max_model_len": "many", "context_length": True, "max_context_length": -1, "meta": 3}], 8192),
        ([], 8192),
    ],
)
def test_the_context_of_an_endpoint_is_what_it_says_of_it_and_it_is_asked_once(
    tmp_path: Path, listed: list[dict[str, Any]], context: int
) -> None:
    with contextlib.closing(StubDriver()) as stub:
        stub.models = listed
        one = Driver(Settings(home=tmp_path, driver=DriverSettings(endpoint=stub.url, name="m")))
        assert one.seen()[1] == 8192 and stub.listed == 0, "before it is needed, nothing is asked"
        one.ensure()
        one.ensure()
        assert (one.seen()[1], stub.listed, one.here) == (context, 1, True)


def test_a_context_that_is_set_counts_before_what_an_endpoint_says_of_it(tmp_path: Path) -> None:
    with contextlib.closing(StubDriver()) as stub:
        stub.models = [{"id": "m", "max_model_len": 32768}]
        chosen = DriverSettings(endpoint=stub.url, name="m", context_tokens=8192)
        one = Driver(Settings(home=tmp_path, driver=chosen))
        one.ensure()
        assert one.seen()[1] == 8192


def test_an_endpoint_that_does_not_say_its_context_in_time_keeps_no_turn_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_LISTING_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        one = Driver(Settings(home=tmp_path, driver=DriverSettings(endpoint=url, name="m")))
        assert one.ensure().url == url and (one.seen()[1], one.here) == (8192, False)


def test_the_first_request_of_a_native_turn_shows_the_tools_that_its_context_has_room_for(tmp_path: Path) -> None:
    with contextlib.closing(StubDriver()) as stub:
        stub.models = [{"id": "m", "max_model_len": 131072}]
        chosen = DriverSettings(endpoint=stub.url, name="m", routing=False)
        driver = Driver(Settings(home=tmp_path, driver=chosen))
        deps = TurnDeps(
            ws=Workspace(Store(tmp_path), None, lambda event, **data: None),
            approver=lambda plan, step: Decision(False, "test"),
            show=lambda shown: None,
            start_pipeline=lambda plan: "",
            known=lambda: known(driver),
        )
        with contextlib.closing(Chat(deps)) as chat:
            chat.begin("hi", lambda: model_of(driver.ensure()), lambda line: None).result(60)
        tools = {tool["function"]["name"] for tool in stub.requests[0]["tools"]}
        assert {f"read_{name}" for name in ("runs", "machine", "fits")} <= tools
