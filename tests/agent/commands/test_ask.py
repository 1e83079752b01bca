"""`ask`: who answers, what is asked about first, what is recorded, how answers look. Against a stand-in for vLLM."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.fixtures import warm
from tests.fixtures.askable import STUB, Home, add, add_run
from tests.fixtures.steps import requests_sent
from tests.fixtures.tables import table
from tunesmith.agent.commands.approvals import TerminalApprover, nobody
from tunesmith.agent.commands.ask import ask_line
from tunesmith.agent.commands.ask_view import AnswersView, plain_text
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.settings import Settings
from tunesmith.memory.errors import ApprovalPending, BadInput, NotFound, StepFailed
from tunesmith.memory.locks import locked
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.stage import GIB, Plan
from tunesmith.tools.evaluation.ask import named_arms
from tunesmith.tools.evaluation.ask_message import MESSAGE_BYTES_MAX, Frame, frame_of_run, read_message
from tunesmith.tools.pipeline import ask_models as asking
from tunesmith.tools.pipeline.ask_models import LEASE_S, Answer, Question, ask_models
from tunesmith.tools.pipeline.tenancy import MACHINE_LOCK
from tunesmith.tools.pipeline.workspace import Decision, Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.model_server import served_name
from tunesmith.tools.suites.case import Case, Suite


def nobody_asked(plan: Plan, step: str) -> Decision:
    raise AssertionError(f"it was asked about {plan.summary}")


# --- what runs already is used


@pytest.mark.heavy
def test_a_deployed_model_answers_without_a_question_and_without_a_mark_on_the_run(home: Home) -> None:
    server = home.deploy("quantized")
    before = [step.id for step in home.store.steps()]
    answered = home.ask("say hello", "quantized", approver=nobody_asked)
    [one] = answered.answers
    assert (one.arm, one.artifact, one.text) == ("quantized", home.made["quantized"].id, "hello") and one.seconds > 0
    assert servers.list_servers(home.store.home) == [server] and not answered.started
    assert [step.id for step in home.store.steps()] == before and not home.recorded("ask.priced")


@pytest.mark.heavy
def test_a_deployed_adapter_answers_for_its_base_too(home: Home) -> None:
    home.deploy("adapter")
    home.ask("Where?", "base", "adapter", approver=nobody_asked)
    assert [r["model"] for r in requests_sent(home.ws)] == [
        served_name(home.made["base"]),
        served_name(home.made["adapter"]),
    ]


def test_a_model_that_was_made_again_is_not_answered_for_by_the_deployed_one(home: Home) -> None:
    home.deploy("quantized")
    add(home.store, home.run, "quantized", home.made["base"].id)
    with pytest.raises(ApprovalPending):
        home.ask("Where?", "quantized", approver=pending)


# --- else it is priced, agreed to, started, asked


def pending(plan: Plan, step: str) -> Decision:
    raise ApprovalPending(plan.hash)


def test_what_is_not_served_is_priced_first_and_nothing_starts_unasked(home: Home) -> None:
    with pytest.raises(ApprovalPending):
        home.ask(approver=pending)
    names = [name for name, _ in home.events]
    plan = next(data["plan"] for name, data in home.events if name == "plan.shown")
    assert names == ["plan.shown", "approval.required"] and plan.estimate.seconds > 0 and plan.estimate.peak_ram_bytes
    assert home.recorded("ask.priced")[0]["plan_hash"] == plan.hash
    assert not servers.list_servers(home.store.home) and not requests_sent(home.ws)


def test_the_price_is_bound_to_what_is_served_and_not_to_the_words(home: Home) -> None:
    def hash_of(text: str, *arms: str) -> str:
        with pytest.raises(ApprovalPending) as waits:
            home.ask(text, *arms, approver=pending)
        return str(waits.value)

    assert hash_of("one", "base") == hash_of("two", "base") != hash_of("one", "quantized")


@pytest.mark.heavy
def test_a_yes_starts_a_server_for_ten_minutes_and_leaves_events_but_no_step(home: Home) -> None:
    before, words = len(home.store.steps()), "my secret parcel"
    answered = home.ask(words, "base", "adapter")
    assert [one.arm for one in answered.answers] == ["base", "adapter"] and answered.started == 1
    [server] = servers.list_servers(home.store.home)
    assert json.loads(server.record.read_text())["lease_s"] == LEASE_S == 600 and server.role == servers.BENCH
    assert [home.recorded(name)[0].get("decision", "") for name in ("ask.priced", "approval.decided")] == ["", "yes"]
    [started], [asked] = home.recorded("server.started"), home.recorded("asked")
    assert started["server"] == server.id and started["lease_seconds"] == 600
    assert [a["artifact"] for a in asked["answers"]] == [home.made["base"].id, home.made["adapter"].id]
    assert asked["characters"] == len(words) and all(a["characters"] > 0 for a in asked["answers"])
    assert len(home.store.steps()) == before
    kept = (home.store.home / "tunesmith.db").read_bytes() + (home.store.home / "tunesmith.db-wal").read_bytes()
    assert words.encode() not in kept and answered.answers[0].text.encode() not in kept


@pytest.mark.heavy
def test_the_next_question_finds_the_server_and_renews_its_lease(home: Home) -> None:
    home.ask("one", "base")
    [server] = servers.list_servers(home.store.home)
    lease = server.record.with_suffix(".lease")
    os.utime(lease, (1, 1))
    home.ask("two", "adapter", approver=nobody_asked)
    assert servers.list_servers(home.store.home) == [server] and lease.stat().st_mtime > 1e9


@pytest.mark.heavy
def test_a_lease_is_renewed_while_a_slow_answer_is_written(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_DELAY_S", "0.6")
    home.deploy("quantized")
    renewed: list[servers.Server] = []
    monkeypatch.setattr(servers, "renew", renewed.append)
    monkeypatch.setattr(servers, "RENEW_EVERY_S", 0.05)
    home.ask("slowly", "quantized", approver=nobody_asked)
    assert len(renewed) > 2, "once before it and once after it is no answer of ten minutes"


def test_a_no_starts_nothing_and_is_recorded_with_its_reason(home: Home) -> None:
    with pytest.raises(StepFailed, match="nothing was started: not now"):
        home.ask(approver=lambda plan, step: Decision(False, "terminal", "not now"))
    assert home.recorded("approval.decided")[0]["reason"] == "not now" and not servers.list_servers(home.store.home)


@pytest.mark.heavy
def test_two_servers_that_do_not_fit_side_by_side_come_one_after_the_other(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = asking.planning_facts.gather(home.store, home.run, vllm=home.ws.vllm)
    peaks: list[int] = []

    def note(plan: Plan, step: str) -> Decision:
        peaks.append(plan.estimate.peak_ram_bytes)
        return Decision(True, "test")

    home.ask("one", "base", "quantized", approver=note)
    assert len(servers.list_servers(home.store.home)) == 2
    servers.stop_all(home.store.home)
    small = Machine("cpu", 2, 24 * GIB, peaks[0] - 1, 0, one.machine.disk_free_bytes)
    monkeypatch.setattr(asking, "measure_machine", lambda home: small)
    answered = home.ask("two", "base", "quantized", approver=note)
    [left] = servers.list_servers(home.store.home)
    assert peaks[1] < peaks[0] and len(answered.answers) == 2 and left.spec.served_name.startswith("quantized")


@pytest.mark.heavy
def test_what_does_not_fit_is_refused_and_what_is_deployed_stays(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    server = home.deploy("quantized")
    monkeypatch.setattr(asking, "measure_machine", lambda home: Machine("cpu", 2, 8 * GIB, GIB // 4, 0, GIB))
    with pytest.raises(BadInput, match=r"needs .* of RAM.*try --arms quantized, which is served now, or `tunesmith se"):
        home.ask("Where?", approver=nobody_asked)
    assert servers.list_servers(home.store.home) == [server]


@pytest.mark.heavy
def test_while_a_step_has_the_machine_only_what_is_deployed_is_asked(home: Home) -> None:
    home.ask("one", "base")  # a measuring server is there
    home.deploy("quantized")
    with ExitStack() as stack:
        stack.enter_context(locked(home.store.home / MACHINE_LOCK, holder="s4"))
        with pytest.raises(BadInput, match=r"has the machine now; ask again .* --arms quantized"):
            home.ask("two", approver=nobody_asked)
        assert home.ask("three", "quantized", approver=nobody_asked).answers[0].text
    assert len(requests_sent(home.ws)) == 2


@pytest.mark.heavy
def test_an_adapter_that_vllm_refuses_is_said_with_what_works(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_NO_LORA", "load")
    with pytest.raises(StepFailed, match=r"does not serve adapters of this base.*tunesmith merge"):
        home.ask("one", "adapter")
    step = home.store.propose(home.run, "evaluate", arm="adapter", plan_hash="e")
    proof = {"vllm_refused": "TinyMoe does not support LoRA yet"}
    home.store.finish(step, {"artifact": "", "arm": "adapter", "keys": {}, "comparisons": [], "proof": proof})
    with pytest.raises(BadInput, match=r"not measured on vLLM .TinyMoe.*--arms base,merged"):
        home.ask("two", "adapter", approver=nobody_asked)
    servers.stop_all(home.store.home)
    home.ask("three", "base")
    assert servers.list_servers(home.store.home)[-1].spec.max_lora_rank == 0


@pytest.mark.heavy
def test_a_base_whose_server_takes_no_adapters_is_asked_without_any(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_NO_LORA", "start")
    assert home.ask("one", "base").answers[0].text
    home.ask("two", "base", approver=nobody_asked)
    with pytest.raises(StepFailed, match=r"does not serve adapters of this base.*TinyMoe"):
        home.ask("three", "adapter")


# --- which run, which arms


@pytest.mark.heavy
def test_left_out_the_run_is_the_newest_that_made_a_model_and_the_arms_are_base_and_what_is_deployed(
    home: Home,
) -> None:
    newer, made = add_run(home.store, "newer")
    home.store.new_run("empty")
    seen: list[Plan] = []

    def note(plan: Plan, step: str) -> Decision:
        seen.append(plan)
        raise ApprovalPending("later")

    with pytest.raises(ApprovalPending):
        home.ask(approver=note)
    assert (seen[0].run, seen[0].arm) == (newer, "base,quantized")
    Home(home.ws, newer, made, []).deploy("adapter")
    answered = home.ask("Where?", approver=nobody_asked)
    assert [(one.arm, one.artifact) for one in answered.answers] == [
        ("base", made["base"].id),
        ("adapter", made["adapter"].id),
    ]


def test_what_cannot_be_asked_is_said_with_what_can(home: Home) -> None:
    with pytest.raises(BadInput, match=r"has made no merged model; it can ask base, adapter and quantized"):
        home.ask("Where?", "merged")
    with pytest.raises(NotFound, match="no run 'r9'"):
        home.ask("Where?", run="r9")
    for name, words in (("adaptor", "did you mean 'adapter'"), ("x", "the arms are base"), ("prompted", "no model")):
        with pytest.raises(BadInput, match=words):
            named_arms(name)
    assert named_arms(" Base, adapter,base") == ("base", "adapter")
    made = home.made["quantized"]
    made.path.rename(made.path.with_name("elsewhere"))
    with pytest.raises(BadInput, match=r"files of the quantized model .* are gone"):
        home.ask("Where?", "quantized")


def test_no_model_at_all(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model was made yet"):
        ask_models(Workspace(Store(tmp_path), None, lambda event, **data: None), Question("a"), nobody_asked)


# --- the message


@table(
    ("given", "says"),
    [
        ("", "is empty"),
        (" \n ", "is empty"),
        (b"x" * (MESSAGE_BYTES_MAX + 1), "more than 500,000 bytes"),
        (b"\x89PNG\r\n", r"not UTF-8 text \(byte 1 is 0x89\)"),
        ("caf\udce9", r"not UTF-8 text \(byte 4 is 0xE9\)"),
        ("a\x1b[31m", r"control character U\+001B as its character 2"),
        (b"a\x00b", r"control character U\+0000 as its character 2"),
    ],
)
def test_what_is_no_message_is_refused_in_a_sentence(given: str | bytes, says: str) -> None:
    with pytest.raises(BadInput, match=says) as refused:
        read_message(given)
    assert "\n" not in str(refused.value)


def test_lines_tabs_and_other_scripts_are_kept() -> None:
    assert read_message("Grüße\tan 退款 💶\r\n\r\nzwei\n") == "Grüße\tan 退款 💶\n\nzwei"


def test_a_message_longer_than_the_context_is_refused_with_the_numbers(home: Home) -> None:
    with pytest.raises(BadInput, match=r"has 3,000 tokens and its answer may have 128: .* have 2,048; shorten it"):
        home.ask("x" * 3000, "quantized", approver=nobody_asked)


def add_suite(home: Home, **request: Any) -> None:
    """A baseline whose target cases stand in an instruction, under a system prompt."""
    texts = ("My lamp broke.", "I was charged twice.", "Log me in.")
    cases = [
        Case(
            case_id=f"c{n}",
            suite="s",
            messages=(
                {"role": "system", "content": "You sort letters."},
                {"role": "user", "content": f"Sort this:\n\n{text}"},
            ),
            vars={"letter": text, "order": "1"},
        )
        for n, text in enumerate(texts)
    ]
    step = home.store.propose(home.run, "baseline", plan_hash="b", request=request)
    path = home.store.home / "suite.json"
    path.write_text(Suite(cases=tuple(cases)).to_json())
    made = home.store.add_artifact(Artifact("", home.run, step, "suite", path, "5" * 64, 1))
    home.store.finish(step, {"artifact": made.id, "key": {"suite": "s"}})


@pytest.mark.heavy
def test_a_message_is_put_as_the_runs_cases_are_with_their_sampling(home: Home) -> None:
    add_suite(home, max_tokens=7)
    assert frame_of_run(home.store, home.run) == Frame("You sort letters.", "Sort this:\n\n", "")
    home.ask("Where is it?", "quantized")
    home.ask("Sort this:\n\nWhere is it?", "quantized")
    home.ask("Where is it?", "quantized", as_is=True)
    framed, again, plain = requests_sent(home.ws)
    assert (
        framed["messages"]
        == again["messages"]
        == [
            {"role": "system", "content": "You sort letters."},
            {"role": "user", "content": "Sort this:\n\nWhere is it?"},
        ]
    )
    assert plain["messages"] == [{"role": "user", "content": "Where is it?"}]
    assert (framed["max_tokens"], framed["temperature"], framed["seed"]) == (7, 0.0, 0)


@pytest.mark.heavy
def test_an_answer_that_used_up_its_tokens_says_so(home: Home) -> None:
    [one] = home.ask("say and so on…", "quantized").answers
    assert one.cut_at_tokens == 128 and "cut off: an answer has up to 128 tokens" in plain_text([one])


# --- the command


def command(home: Home, *args: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    env = {**os.environ, "TUNESMITH_HOME": str(home.store.home), "TUNESMITH_VLLM": str(STUB)}
    if stdin is None:
        done = warm.run(["ask", *args], env)
        return done.returncode, done.stdout, done.stderr
    folder = home.store.home
    (folder / "in").write_bytes(stdin)
    with (folder / "in").open("rb") as source, (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        code = warm.start(["ask", *args], env, [source.fileno(), out.fileno(), err.fileno()]).wait(60)
    return code, (folder / "out").read_text(), (folder / "err").read_text()


@pytest.mark.heavy
def test_the_command_shows_a_price_and_a_hash_then_answers_by_that_hash(home: Home) -> None:
    code, out, err = command(home, "say", "hello", "--arms", "quantized", "--json")
    waits = json.loads(out)
    assert code == 3 and waits["stage"] == "ask" and waits["estimated_seconds"] > 0 and len(waits["plan_hash"]) == 64
    assert f"--approve {waits['plan_hash'][:12]}" in err
    code, out, err = command(home, "say hello", "--arms", "quantized", "--json", "--approve", "0" * 12)
    assert code == 3 and not servers.list_servers(home.store.home)
    code, out, err = command(home, "say hello", "--arms", "quantized", "--json", "--approve", waits["plan_hash"][:12])
    [answer] = json.loads(out)["answers"]
    assert code == 0 and {"arm", "artifact", "text", "seconds"} <= set(answer) and answer["text"] == "hello"
    code, out, err = command(home, "-", "--arms", "quantized", stdin=b"say one\ntwo\n")
    assert code == 0 and out.splitlines()[1:] == ["one", "two"] and out.startswith("quantized (")
    status = warm.run(["serve", "status"], {**os.environ, "TUNESMITH_HOME": str(home.store.home)}).stdout
    assert "ends in" in " ".join(status.split())


@pytest.mark.heavy
@pytest.mark.parametrize(("args", "stdin"), [([""], None), (["-"], b"\x89PNG"), (["a", "--arms", "adaptor"], None)])
def test_bad_input_is_one_line_and_exit_code_2(home: Home, args: list[str], stdin: bytes | None) -> None:
    code, out, err = command(home, *args, stdin=stdin)
    assert code == 2 and not out and len(err.splitlines()) == 1, err


@pytest.mark.heavy
def test_an_arm_without_an_answer_is_exit_code_1_and_says_why(home: Home) -> None:
    home.deploy("quantized")
    code, out, _ = command(home, "this is an err", "--arms", "quantized")
    assert code == 1 and "no answer: HTTP 400: told to" in out


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("where's my parcel? --arms quantized", "where's my parcel?"),
        ('--arms quantized --run r1 it\'s "here" -- is it?', 'it\'s "here" -- is it?'),
        ('--arms=quantized "Where is it?"', "Where is it?"),
        ("say --as-is twice --as-is --arms quantized", "say --as-is twice"),
    ],
)
def test_at_the_prompt_the_message_is_the_rest_of_the_line(home: Home, line: str, text: str) -> None:
    home.deploy("quantized")
    chosen = Settings(home=home.store.home, vllm=str(STUB))
    pages: list[Any] = []
    assert ask_line(line, chosen, home.store, Output(page=pages.append), nobody_asked) == 0
    assert requests_sent(home.ws)[-1]["messages"] == [{"role": "user", "content": text}] and len(pages) == 1


def test_at_the_prompt_a_message_is_needed(home: Home) -> None:
    for line in ("", "  ", "--arms quantized"):
        with pytest.raises(BadInput, match="/ask needs a message"):
            ask_line(line, Settings(home=home.store.home), home.store, Output(), nobody_asked)


@pytest.mark.heavy
def test_a_price_of_a_question_is_agreed_to_as_it_is_and_asks_for_nothing_else(home: Home) -> None:
    said: list[str] = []
    answers = iter(["lora_rank=8", "why", "yes"])

    def answer(question: str) -> str:
        said.append(question)
        return next(answers)

    shown_all: list[Plan] = []
    approver = TerminalApprover(answer, lambda plan, step: shown_all.append(plan))
    assert home.ask("one", "quantized", approver=approver).answers[0].text
    assert "ask is agreed to as it is shown" in said[1] and len(shown_all) == 1 and len(said) == 3
    with pytest.raises(ApprovalPending, match=r"ask needs a yes to plan \w{12}: .*--approve \w{12}"):
        home.ask("one", "base", approver=nobody)


# --- how it looks


def shown(width: int, *answers: Answer) -> list[str]:
    console = Console(width=width, force_terminal=False, file=sys.stderr)
    with console.capture() as captured:
        console.print(AnswersView(answers))
    return captured.get().splitlines()


JSON = Answer("quantized", "a3", '{"category": "billing", "note": "Grüße"}', 1.2)
LINES = Answer("base", "a1", "First line.\n\n  - an indented one", 0.4)


def test_answers_stand_side_by_side_where_there_is_room_and_below_each_other_where_not() -> None:
    wide = shown(100, LINES, JSON)
    assert "base (a1, 0.4 s)" in wide[1] and "quantized (a3, 1.2 s)" in wide[1]
    assert any("First line." in line and "{" in line for line in wide)
    narrow = shown(99, LINES, JSON)
    assert narrow[:4] == ["base (a1, 0.4 s)", "First line.", "", "  - an indented one"]
    assert narrow[5:7] == ["quantized (a3, 1.2 s)", "{"] and '  "note": "Grüße"' in narrow


def test_what_a_model_says_cannot_steer_the_terminal() -> None:
    text = plain_text([Answer("base", "a1", "red \x1b[31m [bold]x[/bold]", 0.1)])
    assert "\x1b" not in text and "⟨U+001B⟩" in text and "[bold]x[/bold]" in text
