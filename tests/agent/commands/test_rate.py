"""`rate`: what a person types and presses is kept, once, and nobody is told which model said what."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.commands.test_rows import asked
from tests.fixtures import warm
from tests.fixtures.askable import STUB, Home, add
from tests.fixtures.steps import requests_sent, say_yes
from tests.fixtures.tables import table
from tests.fixtures.terminal import Terminal
from tunesmith.agent.commands.rate_web import RateServer
from tunesmith.agent.repl.bare import command
from tunesmith.memory.errors import ApprovalPending, BadInput, StepFailed
from tunesmith.memory.ratings import keep_answer
from tunesmith.memory.records import TrainingRow, Verdict
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.evaluation.ratings import ratings_of
from tunesmith.tools.pipeline.ask_models import Answer
from tunesmith.tools.pipeline.rate_answers import Sitting
from tunesmith.tools.pipeline.workspace import Decision
from tunesmith.tools.suites.case import Case

WHO = "who says it?"


def nobody_asked(plan: Plan, step: str) -> Decision:
    raise AssertionError(f"it was asked about {plan.summary}")


def trained_on(home: Home, text: str, verdict: Verdict | None = None) -> None:
    step = home.store.propose(home.run, "generate", plan_hash="g")
    row = TrainingRow(
        "w1", "generated", [{"role": "user", "content": text}], [], RowAttributes(text=text), verdict=verdict
    )
    home.store.add_rows(home.run, step, [row])
    home.store.finish(step, {})
    home.store.announce([step])


def answer(home: Home, sitting: Sitting, *messages: str) -> None:
    """Both arms' answers to messages, without a server."""
    for message in messages:
        sitting.add(message, "typed")
    for one in sitting.now().values():
        for arm in sitting.pair.arms:
            keep_answer(home.store, one.id, arm, f"{arm}'s answer to {one.message}")


# Asked once


@pytest.mark.heavy
def test_messages_are_asked_of_both_arms_at_one_price_and_never_again(home: Home) -> None:
    sitting = Sitting.of(home.ws, home.run, ("base", "adapter"))
    assert sitting.add_all([f"{n}: {WHO}" for n in range(3)], "typed") == []
    plans: list[Plan] = []
    before = len(home.store.steps())

    def note(plan: Plan, step: str) -> Decision:
        plans.append(plan)
        return say_yes(plan, step)

    assert sitting.ask(note) == 1 and sitting.ask(nobody_asked) == 0
    assert len(plans) == 1 and "3 questions" in plans[0].summary and len(requests_sent(home.ws)) == 6
    for one in sitting.open().values():
        assert {text for text, _ in one.answers_in_order} == {
            f"said by {kind}-{home.made[kind].id}" for kind in sitting.pair.arms
        }
    assert len(home.store.steps()) == before
    [told] = home.recorded("asked")
    assert [one["answers"] for one in told["answers"]] == [3, 3] and WHO not in json.dumps(told)


@pytest.mark.heavy
def test_what_was_answered_before_a_fault_is_not_asked_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    sitting = Sitting.of(home.ws, home.run, ("base", "adapter"))
    sitting.add_all(["one", "two"], "typed")

    def stop_at_the_second(ws: Any, run: str, who: Any, asked_: Any, approver: Any, take: Any) -> int:
        take(next(iter(asked_["base"])), Answer("base", "a1", "the first", 0.1))
        raise StepFailed("killed")

    with monkeypatch.context() as patched, pytest.raises(StepFailed):
        patched.setattr("tunesmith.tools.pipeline.rate_answers.ask_each", stop_at_the_second)
        sitting.ask(say_yes)
    Sitting.of(home.ws, home.run, ("base", "adapter")).ask(say_yes)
    sent = sorted((r["model"].split("-")[0], r["messages"][0]["content"]) for r in requests_sent(home.ws))
    assert sent == [("adapter", "one"), ("adapter", "two"), ("base", "two")]
    assert sitting.now()[1].first_answer == "the first"


@pytest.mark.heavy
def test_a_message_without_an_answer_waits_and_says_why(home: Home) -> None:
    sitting = Sitting.of(home.ws, home.run, ("base", "adapter"))
    sitting.add_all(["this is an err", "fine"], "typed")
    sitting.ask(say_yes)
    assert [one.message for one in sitting.open().values()] == ["fine"]
    assert "HTTP 400: told to" in next(iter(sitting.errors.values()))


def test_a_no_keeps_the_messages(home: Home) -> None:
    sitting = Sitting.of(home.ws, home.run)
    sitting.add("one", "typed")
    with pytest.raises(StepFailed, match="nothing was started"):
        sitting.ask(lambda plan, step: Decision(False, "terminal", "later"))
    with pytest.raises(ApprovalPending):
        sitting.ask(lambda plan, step: (_ for _ in ()).throw(ApprovalPending("x")))
    assert [one.message for one in Sitting.of(home.ws, home.run).now().values()] == ["one"]


def test_what_does_not_count_or_has_no_place_is_said_and_not_taken(home: Home) -> None:
    trained_on(home, "My kettle arrived broken")
    sitting = Sitting.of(home.ws, home.run)
    texts = ["my kettle arrived broken", "", "x" * 3000, "fine", "fine", *(f"number {n} of many" for n in range(25))]
    refused = sitting.add_all(texts, "file")
    wanted = ("training row w1", "is empty", "3,000 tokens", "message 1 already", "6 messages more")
    assert len(refused) == len(wanted) and all(says in line for line, says in zip(refused, wanted, strict=True))
    assert len(sitting.now()) == 20 and sitting.room() == 0
    with pytest.raises(BadInput, match="20 messages wait"):
        sitting.add("another", "typed")


def test_a_test_case_is_refused_unless_it_is_of_a_held_out_row(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(case_id="rain", suite="s", messages=({"role": "user", "content": "It rains"},))
    monkeypatch.setattr("tunesmith.tools.evaluation.rated_messages.newest_cases", lambda store, run: (case,))
    sitting = Sitting.of(home.ws, home.run)
    for source in ("typed", "pasted", "file"):
        [refused] = sitting.add_all(["it rains!"], source)
        assert "is the test case rain already" in refused
    assert sitting.add_all(["it rains!"], "generated") == [] and sitting.add_all(["It snows"], "typed") == []


def test_the_same_answer_is_not_right_and_wrong(home: Home) -> None:
    sitting = Sitting.of(home.ws, home.run)
    sitting.add("say it", "typed")
    [one] = sitting.now().values()
    for arm in sitting.pair.arms:
        keep_answer(home.store, one.id, arm, "it")
    with pytest.raises(BadInput, match="letter for letter"):
        sitting.rate(1, (True, False), "me")
    sitting.rate(1, (True, True), "me")
    assert len(ratings_of(home.store, home.run, "quantized")) == 1


def test_which_models_are_judged(home: Home) -> None:
    assert Sitting.of(home.ws).pair.arms == ("base", "quantized")
    assert Sitting.of(home.ws, home.run, ("adapter", "base")).pair.training == home.made["adapter"].id
    assert Sitting.of(home.ws, home.run, ("quantized", "adapter")).pair.arms == ("adapter", "quantized")
    with pytest.raises(BadInput, match="two different arms"):
        Sitting.of(home.ws, home.run, ("base",))
    first = Sitting.of(home.ws, home.run, ("base", "adapter"))
    answer(home, first, "one")
    first.rate(1, (True, True), "me")
    again = Sitting.of(home.ws, home.run)
    assert again.add_earlier() == [] and [one.message for one in again.now().values()] == ["one"]
    with pytest.raises(BadInput, match="no message was judged with other models"):
        again.add_earlier()
    with pytest.raises(BadInput, match="no held-out row"):
        again.add_generated(5)


def test_of_a_model_that_is_gone_or_was_made_anew_the_answers_are_judged_and_no_more_are_asked(home: Home) -> None:
    answer(home, sitting := Sitting.of(home.ws), "one")
    begun = Sitting.of(home.ws)
    add(home.store, home.run, "quantized", home.made["base"].id)
    with pytest.raises(BadInput, match="another model meanwhile"):
        begun.add("two", "typed")
    assert not Sitting.of(home.ws).now(), "the newer one is judged on its own answers"
    home.made["base"].path.rename(home.made["base"].path.with_name("elsewhere"))
    sitting.rate(1, (True, True), "me")
    assert sitting.take_back() == 1
    with pytest.raises(BadInput, match=r"files of the base model .* are gone"):
        Sitting.of(home.ws).add("two", "typed")


def test_messages_of_held_out_rows_are_counted_apart(home: Home) -> None:
    trained_on(home, "where is my parcel", Verdict("held out", "a case of its own"))
    sitting = Sitting.of(home.ws)
    assert sitting.add_generated(5) == []
    answer(home, sitting, "mine", "Where is my parcel!")
    for number in (1, 2, 3):
        sitting.rate(number, (True, True), "me")
    document = sitting.document()
    assert document["messages"] == 1 and document["generated"] == {
        "messages": 2, "right": {"base": 2, "quantized": 2}, "open": 0,
    }, "pasted or not: a model wrote it"  # fmt: skip
    with pytest.raises(BadInput, match="no held-out row that was not asked"):
        sitting.add_generated(5)


# At the terminal


@pytest.fixture
def open_terminal(home: Home) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []
    env = {**os.environ, "TUNESMITH_HOME": str(home.store.home), "TUNESMITH_VLLM": str(STUB), "TERM": "xterm-256color"}

    def open_(*args: str) -> Terminal:
        opened.append(Terminal(args, env, size=(24, 80)))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def right(home: Home) -> list[bool]:
    return [one.arm_right for one in ratings_of(home.store, home.run, "quantized")]


def test_killed_in_the_middle_nothing_is_lost_and_nothing_is_double(
    home: Home, open_terminal: Callable[..., Terminal]
) -> None:
    answer(home, Sitting.of(home.ws), "one", "two", "three")
    shown = open_terminal("rate", home.run)
    shown.expect("is 1 right?")
    place = shown.type("yyn")  # the whole of one, half of the second
    shown.expect("is 2 right?", after=place + 40)
    home_ = shown.wait(lambda: right(home))
    assert home_ == [True]
    shown.expect("[2 of 3]")
    shown.kill()
    assert right(home) == [True]
    again = open_terminal("rate", home.run)
    again.expect("[2 of 3]")
    again.type("nn")
    again.expect("[3 of 3]")
    again.type("yyx")
    assert again.end() == 0 and "3 messages judged: base 2 right and quantized 2 right" in " ".join(again.text.split())
    assert right(home) == [True, False, True] and not requests_sent(home.ws)


def test_keys_take_back_put_off_and_leave(home: Home, open_terminal: Callable[..., Terminal]) -> None:
    answer(home, Sitting.of(home.ws), "one", "two")
    shown = open_terminal("rate", home.run)
    shown.expect("is 1 right?")
    for keys, says in (("yy", "[2 of 2]"), ("u", "message 1 was taken back"), ("z", "no key here"), ("nn", "[2 of 2]"),
                       ("\x1b[As", "1 waits")):  # fmt: skip
        shown.expect(says, after=shown.type(keys))
    assert shown.end() == 0 and right(home) == [False]
    shown = open_terminal("rate", home.run)
    shown.expect("is 1 right?")
    shown.type("yq")
    assert shown.end() == 0 and right(home) == [False], "one key is no judgement"


def test_two_terminals_at_once_count_a_message_once(home: Home, open_terminal: Callable[..., Terminal]) -> None:
    answer(home, Sitting.of(home.ws), "one")
    shown = [open_terminal("rate", home.run) for _ in range(2)]
    for each in shown:
        each.expect("is 1 right?")
    shown[0].type("yy")
    assert shown[0].end() == 0
    shown[1].type("nn")
    shown[1].expect("was judged elsewhere")
    assert shown[1].end() == 0 and right(home) == [True]


def test_what_a_model_says_cannot_steer_the_terminal_and_no_arm_is_named(
    home: Home, open_terminal: Callable[..., Terminal]
) -> None:
    sitting = Sitting.of(home.ws)
    sitting.add("one [bold]x[/bold]", "typed")
    [one] = sitting.now().values()
    keep_answer(home.store, one.id, "base", "\x1b]0;title\x07\u202eright to left")
    keep_answer(home.store, one.id, "quantized", "plain", 128)
    shown = open_terminal("rate", home.run)
    shown.expect("is 1 right?")
    assert b"\x1b]0;title" not in shown.raw and "⟨U+001B⟩" in shown.text and "⟨U+202E⟩" in shown.text
    assert "[bold]x[/bold]" in shown.text and "cut off: an answer has up to 128 tokens" in shown.text
    assert "quantized" not in shown.text and "base" not in shown.text and home.made["quantized"].id not in shown.text
    shown.type("q")


@pytest.mark.heavy
def test_messages_are_typed_and_pasted_and_kept_with_their_enter(
    home: Home, open_terminal: Callable[..., Terminal]
) -> None:
    trained_on(home, "My kettle arrived broken")
    shown = open_terminal("rate", home.run)
    shown.expect("message 1:")
    shown.expect("message 2:", after=shown.line("typed by hand"))
    shown.expect("training row w1", after=shown.line("My kettle arrived broken"))
    shown.expect("m a message each", after=shown.type("\x1b[200~first line\nsecond line\n\x1b[201~"))
    shown.expect("message 4:", after=shown.type("m"))
    shown.expect("m a message each", after=shown.type("\x1b[200~dear shop,\n\nwhere is it?\x1b[201~"))
    shown.expect("message 5:", after=shown.type("o"))
    shown.expect("characters; a message has up to", after=shown.type(f"\x1b[200~{'x' * 1_000_000}\x1b[201~"))
    shown.kill()
    kept = [(one.message, one.source) for one in Sitting.of(home.ws).now().values()]
    assert kept == [
        ("typed by hand", "typed"), ("first line", "pasted"), ("second line", "pasted"),
        ("dear shop,\n\nwhere is it?", "pasted"),
    ]  # fmt: skip


# Without one


def run(home: Home, *args: str) -> tuple[int, str, str]:
    env = {**os.environ, "TUNESMITH_HOME": str(home.store.home), "TUNESMITH_VLLM": str(STUB)}
    done = warm.run(["rate", *args], env)
    return done.returncode, done.stdout, done.stderr


def test_without_a_terminal_nobody_presses_keys(home: Home, tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("one\n")
    code, out, err = run(home, home.run, "--messages", str(tmp_path / "m.txt"), "--yes")
    assert code == 2 and not out and "no terminal" in err and len(err.splitlines()) == 1
    assert not Sitting.of(home.ws).now()
    answer(home, sitting := Sitting.of(home.ws), "one", "two")
    sitting.rate(1, (True, True), "me")
    code, out, _ = run(home, "--show", "--json")
    shown = json.loads(out)
    assert code == 0 and {name: shown[name] for name in ("run", "arms", "messages", "right", "open")} == {
        "run": home.run, "arms": ["base", "quantized"], "messages": 2, "right": {"base": 1, "quantized": 1}, "open": 1,
    }  # fmt: skip
    code, out, _ = run(home, "--take-back", "--json")
    assert code == 0 and json.loads(out)["open"] == 2 and json.loads(out)["taken_back"] == 1
    wrong = {
        "message 9 is not judged": ["--take-back", "9"],
        "from 1 to 20": ["--generated", "0", "--web"],
        "is the page's": ["--port", "8000", "--show"],
    }
    for says, args in wrong.items():
        code, _, err = run(home, *args)
        assert code == 2 and says in err


@table(("line", "is_one"), [("rate", True), ("rate r1", True), ("rate this model for me", False)])
def test_the_bare_word_is_the_command_and_a_sentence_is_none(line: str, *, is_one: bool) -> None:
    assert command(line) == (line if is_one else "")


# The page


@pytest.fixture
def page(home: Home) -> Iterator[RateServer]:
    server = RateServer(Sitting.of(home.ws, home.run))
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def post(page: RateServer, what: str, value: Any) -> tuple[int, Any]:
    status, told, _ = asked(page, "POST", f"/{page.token}/{what}", value)  # type: ignore[arg-type]
    return status, told


def test_the_page_judges_and_never_says_which_arm_an_answer_is_of(home: Home, page: RateServer) -> None:
    status, told = post(page, "messages", {"text": "one <b>\u202e</b>\n\ntwo\none <b>\u202e</b>"})
    assert status == 200 and page.wanted.is_set() and "message 1 already" in told["refused"][0]
    answer(home, page.sitting)
    told = asked(page, "GET", f"/{page.token}/state")[1]  # type: ignore[arg-type]
    first = told["shown"][0]
    assert first["message"] == "one <b>⟨U+202E⟩</b>" and told["right"] is None
    assert set(first) == {"number", "message", "generated", "answers", "judged"}
    assert set(first["answers"][0]) == {"text", "cut"} and "innerHTML" not in page.page
    by_place = ["quantized" in one["text"] for one in first["answers"]]
    assert post(page, "judge", {"number": 1, "right": by_place})[0] == 200 and right(home) == [True]
    assert post(page, "judge", {"number": 1, "right": [False, False]})[0] == 400, "once"
    assert post(page, "back", {})[1]["taken_back"] == 1 and right(home) == []
    for number in (1, 2):
        status, told = post(page, "judge", {"number": number, "right": [True, True]})
    assert told["right"] == {"base": 2, "quantized": 2} and told["open"] == 0
    assert ratings_of(home.store, home.run, "quantized")[0].by.endswith(" on the page")


def test_while_any_message_waits_the_page_is_told_no_count_of_an_arm(home: Home, page: RateServer) -> None:
    """A count that grew by one would say which arm an answer was of: a person's messages and generated ones alike."""
    trained_on(home, "where is my parcel", Verdict("held out", "a case of its own"))
    assert page.sitting.add_generated(1) == []
    answer(home, page.sitting, "mine", "Where is my parcel!")

    def told(number: int) -> list[object]:
        state = post(page, "judge", {"number": number, "right": [True, True]})[1]
        return [state["right"], state["generated"]["right"]]

    assert told(1) == [None, None], "a generated one, while others wait"
    assert told(2) == [None, None], "a person's, while a generated one waits"
    assert told(3) == [{"base": 1, "quantized": 1}, {"base": 2, "quantized": 2}]
    assert post(page, "back", {})[1]["right"] is None, "one that was taken back waits again"


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("judge", {"number": "1", "right": [True, True]}),
        ("judge", {"number": True, "right": [True, True]}),
        ("judge", {"number": 1, "right": [1, 0]}),
        ("judge", {"number": 1, "right": [True]}),
        ("judge", [1]),
        ("messages", {"text": 5}),
        ("messages", {}),
        ("back", {"number": "last"}),
        ("back", {}),
        ("judge", "[" * 100_000),
    ],
)
def test_what_the_page_would_not_send_changes_nothing(home: Home, page: RateServer, what: str, value: Any) -> None:
    answer(home, page.sitting, "one")
    assert post(page, what, value)[0] == 400
    with contextlib.suppress(ConnectionError):  # its body is not read
        assert post(page, "messages", {"text": "x" * 1_000_000})[0] == 404
    assert len(page.sitting.open()) == 1 and len(page.sitting.now()) == 1
