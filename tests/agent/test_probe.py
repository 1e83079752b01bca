"""A driver's examination: what it sets, what is no verdict, when it is held, and whom it asks before."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, FunctionModel
from rich.text import Text

from tests.fixtures import FIXTURES
from tests.fixtures.planted_gpus import gpu, plant
from tests.fixtures.stub_driver import StubDriver
from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tests.fixtures.waiting import HANG_S, wait_for
from tunesmith.agent.commands.settings import DriverSettings, Settings
from tunesmith.agent.driver.abilities import Known, Record, keep, known, record_of
from tunesmith.agent.driver.chat import Chat
from tunesmith.agent.driver.endpoint import Driver
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.exam import EXAM, TASKS, level_of
from tunesmith.agent.probe import NoVerdict, examine
from tunesmith.agent.repl.trial import Trial
from tunesmith.memory.files import seal
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import PlanQuestion
from tunesmith.tools.models.known_drivers import SEQUENCES
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.workspace import Decision, Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.endpoint import Endpoint
from tunesmith.tools.serving.spec import ServerSpec

pytestmark = pytest.mark.heavy

ALL = tuple(task.name for task in TASKS)
NAMES = {task.asked: task.name for task in TASKS}
_READS = [("read_step", {"about": "time", "run": run, "stage": "train"}) for run in ("r1", "r2", "r3")]
_AGAIN = {**dict.fromkeys(catalog.BY_NAME["evaluate"].load().settable), "arm": "adapter", "other": None, "run": "r2"}
RIGHT: dict[str, list[Any]] = {
    "choice": [_READS[0], "It took 10 min 11 s."],
    "arguments": [("read_result", {"about": "passed", "run": "r2", "arm": "adapter"}), "71 of 90."],
    "abstention": ["You are welcome."],
    "setting": [("read_setting", {"fields": ["learning_rate"], "run": "r3"}), "It was 0.0007."],
    "two steps": [("read_runs", {"about": "best"}), ("evaluate", _AGAIN), "It was not started."],
    "three reads": [*_READS, "r2 did, by 11 min 51 s."],
}


def task_of(body: dict[str, Any]) -> str:
    """The task that a request belongs to; empty for any other conversation."""
    asked = next((str(m["content"]) for m in body["messages"] if m["role"] == "user"), "")
    return next((name for begins, name in NAMES.items() if asked.startswith(begins)), "")


def served(*right: str, mode: str = "fine") -> StubDriver:
    """A driver that passes these tasks and answers every other one with words alone."""

    def script(body: dict[str, Any]) -> Any:
        name = task_of(body)
        if name not in right:
            return "I do not know."
        act = RIGHT[name][sum(m["role"] == "tool" for m in body["messages"])]
        if isinstance(act, str):
            return act
        tools = {tool["function"]["name"]: tool["function"]["parameters"]["properties"] for tool in body["tools"]}
        return act[0], {key: value for key, value in act[1].items() if key in tools.get(act[0], {})}

    return StubDriver(script, mode=mode)


@pytest.fixture
def stub() -> Iterator[Callable[..., StubDriver]]:
    opened: list[StubDriver] = []

    def open_(*right: str, mode: str = "fine") -> StubDriver:
        opened.append(served(*right, mode=mode))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def driver_of(home: Path, url: str, **chosen: Any) -> Driver:
    return Driver(Settings(home=home, driver=DriverSettings(endpoint=url, name="stub", **chosen)))


@table(
    ("passed", "level"),
    [
        (ALL, "native"),
        (tuple(name for name in ALL if name != "setting"), "native"),
        (tuple(name for name in ALL if name != "three reads"), "fallback"),
        (tuple(name for name in ALL if name != "two steps"), "fallback"),
        (("choice", "arguments", "abstention"), "fallback"),
        ((), "fallback"),
    ],
)
def test_a_driver_is_native_by_the_tasks_that_it_passes(passed: tuple[str, ...], level: str) -> None:
    assert level_of({name: name in passed for name in ALL}) == level


def test_the_tasks_leave_a_sequence_to_the_user() -> None:
    assert len(TASKS) < SEQUENCES, "they run at once, beside the turn that the user holds"


@pytest.mark.parametrize(("passed", "level"), [(ALL, "native"), (("choice", "arguments"), "fallback")])
def test_the_examination_sets_the_level_of_this_driver_with_these_settings(
    tmp_path: Path, stub: Callable[..., StubDriver], passed: tuple[str, ...], level: str
) -> None:
    url = stub(*passed).url
    driver = driver_of(tmp_path, url)
    assert known(driver).level == "fallback", "nothing is known yet"
    found = examine(Endpoint(url, "stub"), 32768)
    assert found.level == level and found.context_tokens == 32768
    assert {*found.passed} <= {*passed, "abstention"} and {*found.failed} & {*passed} == set()
    assert level == "fallback" or {*found.passed} == {*ALL}
    keep(tmp_path, driver.seen()[0], found)
    assert known(driver).level == level
    others = (driver_of(tmp_path, url, tool_parser="mistral"), driver_of(tmp_path, f"{url}/x"))
    assert {known(other).level for other in others} == {"fallback"}, "it was another that was examined"
    assert known(driver_of(tmp_path, url, key="the-key-SECRET")).level == level, "a key makes no other driver"


@table(("routing", "level"), [(True, "fallback"), (False, "native")])
def test_a_level_that_is_set_counts_before_what_was_found(tmp_path: Path, routing: bool, level: str) -> None:
    driver = driver_of(tmp_path, "http://127.0.0.1:9/v1", routing=routing)
    for found in ("native", "fallback"):
        keep(tmp_path, driver.seen()[0], Record(level=found, exam=EXAM))  # type: ignore[arg-type]
        assert known(driver).level == level


def test_a_record_is_of_weights_and_of_how_they_are_served(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", make_tiny_model(tmp_path / "model")
    seal(folder)

    def of(**chosen: Any) -> Driver:
        return Driver(Settings(home=home, driver=DriverSettings(model=str(folder), **chosen)))

    home.mkdir()
    keep(home, of().seen()[0], Record(level="native", exam=EXAM))
    assert known(of()) == Known("native", 8192, thinks=False)
    assert known(of(context_tokens=4096)) == Known("fallback", 4096, thinks=False)
    assert known(of(tool_parser="mistral")).level == "fallback"
    assert known(of(timeout_s=9)).level == "native", "which changes nothing of what it can do"
    (folder / "generation_config.json").write_text('{"temperature": 0.1}')
    seal(folder)
    assert known(of()).level == "fallback", "other weights lie in the folder"


def test_what_another_version_kept_is_nothing(tmp_path: Path) -> None:
    old = {"stub": {"model": "stub", "auto": True, "level": "native", "of": "http://127.0.0.1:9/v1 stub"}}
    (tmp_path / "driver-probe.json").write_text(json.dumps(old))
    driver = driver_of(tmp_path, "http://127.0.0.1:9/v1")
    assert known(driver).level == "fallback"
    keep(tmp_path, driver.seen()[0], Record(level="native", exam="of other tasks", agreed=True))
    assert record_of(tmp_path, driver.seen()[0]) == Record(agreed=True), "of other tasks only the yes is taken over"
    keep(tmp_path, "another", Record(level="native", exam=EXAM))
    assert record_of(tmp_path, driver.seen()[0]).agreed, "what is known of one driver stays beside another's"


@pytest.mark.parametrize("mode", ["cut", "failing", "slow", "garbage"])
def test_a_task_that_died_is_no_verdict(stub: Callable[..., StubDriver], mode: str) -> None:
    with pytest.raises(NoVerdict):
        examine(Endpoint(stub(*ALL, mode=mode).url, "stub", timeout_s=0.5), 32768)


def test_a_driver_that_is_refused_its_tools_failed_by_itself(stub: Callable[..., StubDriver]) -> None:
    assert examine(Endpoint(stub(mode="short").url, "stub"), 2048).level == "fallback"


class Session:
    """What a session's examination meets: its home, its screen, and who is asked."""

    def __init__(self, driver: Driver, answer: bool | None = True) -> None:
        self.driver, self.answer = driver, answer
        self.store = Store(driver.home)
        self.asked: list[str] = []
        self.told: list[str] = []
        self.fetched: list[str] = []
        ws = Workspace(self.store, "/bin/true", lambda event, **data: None, ask=self._ask)
        self.trial = Trial(driver, ws, self._tell, self.fetched.append)

    def _ask(self, question: PlanQuestion) -> bool | None:
        self.asked.append(question.text)
        return self.answer

    def _tell(self, line: Text) -> None:
        self.told.append(line.plain)

    def turn(self) -> None:
        """What follows a turn, to its end."""
        self.trial.behind_a_turn()
        if self.trial._thread:
            self.trial._thread.join(HANG_S)


@table(("answer", "examined"), [(True, True), (False, False), (None, False)])
def test_no_token_goes_to_an_endpoint_for_it_before_a_yes(
    tmp_path: Path, stub: Callable[..., StubDriver], answer: bool | None, examined: bool
) -> None:
    one = stub(*ALL)
    first = Session(driver_of(tmp_path, one.url), answer)
    first.turn()
    first.turn()
    [question] = first.asked
    assert "stub at 127.0.0.1" in question and "6 tasks" in question and "147,456 tokens" in question
    assert bool(one.requests) is examined and len(first.told) == examined
    again = Session(driver_of(tmp_path, one.url), answer)
    again.turn()
    assert len(again.asked) == (answer is None), "an answer is asked for once"
    assert known(again.driver).level == ("native" if examined else "fallback")


def test_an_endpoint_that_does_not_answer_is_looked_for_once_and_not_asked_about(
    tmp_path: Path, stub: Callable[..., StubDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, looked = Session(driver_of(tmp_path, stub(*ALL).url)), list[object]()

    async def silent(endpoint: Endpoint) -> None:
        looked.append(endpoint)

    with monkeypatch.context() as down:
        down.setattr("tunesmith.agent.driver.endpoint.context_of", silent)
        one.turn()
        one.turn()
    assert one.asked == [] and len(looked) == 1 and not (tmp_path / "driver-probe.json").exists()
    one.driver.ensure()  # a turn finds it
    one.turn()
    assert known(one.driver).level == "native"


@table("routing", [True, False])
def test_nothing_is_tried_out_where_the_level_is_set(
    tmp_path: Path, stub: Callable[..., StubDriver], routing: bool
) -> None:
    one = stub(*ALL)
    session = Session(driver_of(tmp_path, one.url, routing=routing))
    session.turn()
    assert session.asked == [] and one.requests == [] and one.listed == 0


def test_after_a_lost_connection_nothing_is_kept_and_a_later_start_tries_again(
    tmp_path: Path, stub: Callable[..., StubDriver]
) -> None:
    one = stub(*ALL, mode="cut")
    first = Session(driver_of(tmp_path, one.url))
    first.turn()
    assert record_of(tmp_path, first.driver.seen()[0]) == Record(agreed=True) and first.told == []
    one.mode = "fine"
    first.turn()
    assert known(first.driver).level == "fallback", "one try a session"
    later = Session(driver_of(tmp_path, one.url))
    later.turn()
    assert later.asked == [] and known(later.driver).level == "native"


def test_nothing_is_examined_beside_a_step_that_is_at_work(
    tmp_path: Path, stub: Callable[..., StubDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stub(*ALL)
    session = Session(driver_of(tmp_path, one.url))
    at_work = [type("Step", (), {"on": "", "stage": "train", "id": "s1"})()]
    monkeypatch.setattr(session.store, "steps", lambda **given: at_work)
    session.turn()
    assert session.asked == [] and one.requests == []
    at_work.clear()
    session.turn()
    assert known(session.driver).level == "native", "the next turn's end finds the machine free"


def test_leaving_gives_the_examination_up(tmp_path: Path, stub: Callable[..., StubDriver]) -> None:
    one = stub(*ALL, mode="slow")
    session = Session(driver_of(tmp_path, one.url))
    session.trial.behind_a_turn()
    wait_for(lambda: bool(one.requests))
    session.trial.close()
    session.trial._thread.join(HANG_S)  # type: ignore[union-attr]
    assert record_of(tmp_path, session.driver.seen()[0]).level is None and session.told == []


def test_a_step_that_begins_ends_the_examination(
    tmp_path: Path, stub: Callable[..., StubDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stub(*ALL, mode="slow")
    session = Session(driver_of(tmp_path, one.url))
    at_work = [type("Step", (), {"on": "", "stage": "train", "id": "s1"})()]
    monkeypatch.setattr(session.store, "steps", lambda **given: at_work if one.requests else [])
    session.turn()
    assert one.requests and session.told == []
    assert record_of(tmp_path, session.driver.seen()[0]) == Record(agreed=True)


STUB_VLLM = str(FIXTURES / "stub_vllm.py")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Driver]:
    """A driver of the user's own, which tunesmith serves."""
    model = make_tiny_model(tmp_path / "strong-model")
    yield Driver(Settings(home=tmp_path / "home", vllm=STUB_VLLM, driver=DriverSettings(model=str(model))))
    servers.stop_all(tmp_path / "home")


def test_a_model_of_ones_own_is_served_and_tried_out_without_a_question(own: Driver) -> None:
    session = Session(own)
    session.turn()
    assert session.asked == [] and record_of(own.home, own.seen()[0]).level == "fallback"
    assert "strong-model passed" in session.told[0] and "routing = false" in session.told[0]


@table(("answer", "gib", "asked"), [(True, 48, 1), (False, 48, 1), (None, 48, 2), (True, 0, 0)])
def test_a_driver_that_calls_tools_is_proposed_once_where_a_card_has_room_and_none_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bool | None, gib: float, asked: int
) -> None:
    plant(monkeypatch, *[gpu(0, free=gib - 1, total=gib)] * bool(gib))
    home = tmp_path / "home"
    sessions = [Session(Driver(Settings(home=home, vllm=STUB_VLLM)), answer) for _ in range(2)]
    for session in sessions:
        session.turn()
    assert sum(len(session.asked) for session in sessions) == asked
    assert sum(len(session.fetched) for session in sessions) == (answer is True and gib > 0)
    named = Session(Driver(Settings(home=home, driver=DriverSettings(model="/nowhere"))))
    named.turn()
    assert named.asked == [], "who names a model is proposed no other one"


def test_no_server_ends_for_an_examination(own: Driver) -> None:
    (own.home / "logs").mkdir(parents=True)
    other = servers.start(
        own.home, ServerSpec(model_dir="/nowhere", served_name="base"), vllm=STUB_VLLM,
        log_path=own.home / "logs" / "log", owner="s1",
    )  # fmt: skip
    session = Session(own)
    session.turn()
    assert [server.id for server in servers.list_servers(own.home)] == [other.id] and session.told == []
    assert not own.here


def test_a_level_changes_between_two_turns_and_never_within_one(tmp_path: Path) -> None:
    driver, during = driver_of(tmp_path, "http://127.0.0.1:9/v1"), list[str]()

    def started() -> FunctionModel:
        """Another examination ends while the turn's driver starts."""
        keep(tmp_path, driver.seen()[0], Record(level="fallback", exam=EXAM))
        return FunctionModel(stream_function=said, model_name="stub")

    async def said(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        during.append(deps.level)
        yield "It is a good thought."

    keep(tmp_path, driver.seen()[0], Record(level="native", exam=EXAM))
    deps = TurnDeps(
        ws=Workspace(Store(tmp_path), None, lambda event, **data: None),
        approver=lambda plan, step: Decision(False, "test"),
        show=lambda line: None,
        start_pipeline=lambda plan: "",
        known=lambda: known(driver),
    )
    with closing(Chat(deps)) as chat:
        chat.begin("let us think about Rex and this together", started, lambda line: None).result(HANG_S)
        assert during == ["native"] and deps.level == "native"
        deps.begin_turn("and now?")
        assert deps.level == "fallback"
