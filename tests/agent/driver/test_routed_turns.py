"""A conversation whose tools are chosen by a schema-bound request: what it may start, and what follows a bad choice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from tests.agent.driver.test_conversation import APPROVE_NOW, Talk
from tests.fixtures.stored_runs import finished_run
from tunesmith.agent.words.head import kind_of
from tunesmith.agent.words.reading import Context, read, reader
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec
from tunesmith.tools.pipeline.workspace import Decision

NO = Decision(False, "terminal", "not tonight")


class Routed(Talk):
    """A driver that chooses by a script and has words for everything."""

    def say(self, prompt: str, choice: str, words: str = "Noted.") -> str:
        shown: list[int] = []

        def choose(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            self.choices = [*self.choices, messages]
            return ModelResponse([TextPart(choice)])

        async def talk(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
            shown.append(len(info.function_tools))
            yield words

        self.deps.routed = True
        model = FunctionModel(choose, stream_function=talk)
        reply = self.chat.begin(prompt, lambda: model, self.said.append).result(30)
        self.shown = shown
        return reply.text

    choices: list[list[ModelMessage]] = []  # noqa: RUF012
    shown: list[int] = []  # noqa: RUF012


@pytest.fixture
def routed(tmp_path: Path) -> Iterator[Routed]:
    one = Routed(tmp_path / "home", [NO] * 20)
    yield one
    one.chat.close()


@pytest.mark.heavy
def test_whatever_is_chosen_nothing_expensive_starts_without_its_price_and_a_yes(routed: Routed) -> None:
    for entry in catalog.STAGES:
        routed.say(f"{entry.name}, {APPROVE_NOW}", json.dumps({"label": f"do.{entry.name}"}))
    routed.say("get the base", '{"label": "do.base"}')
    assert routed.ran() == [] and not routed.store.read("SELECT 1 FROM approvals WHERE decision = 'yes'")
    assert routed.asked and all(plan.estimate.seconds > 0 for plan in routed.asked)


def test_what_the_records_say_is_said_by_code_and_no_request_is_made_for_it(routed: Routed) -> None:
    assert routed.say("list my runs", '{"label": "runs.all"}').startswith("There is no run yet;")
    run = routed.store.new_run("tickets", plan={"steps": [{"stage": "base"}]})
    said = routed.say("how did it go?", '{"label": "run.overview"}')
    assert run in said and "tickets" in said and routed.shown == []


def test_a_word_that_no_argument_took_stops_an_order_that_the_driver_chose(routed: Routed) -> None:
    said = routed.say("train it on my emails", '{"label": "do.train"}')
    assert "“my emails”" in said and routed.asked == [] and routed.ran() == []


def test_an_answer_that_is_no_choice_costs_one_turn_its_routing_and_no_more(routed: Routed) -> None:
    assert routed.say("list my runs", "I think I would look it up", "Which ones?") == "Which ones?"
    assert routed.shown[0] > 0  # its own tool calling
    assert routed.deps.routed


def test_the_nearest_examples_of_each_label_are_its_shots_and_the_state_stands_before_the_words(routed: Routed) -> None:
    routed.say("how long did the training take", '{"label": "none"}')
    *shots, asked = routed.choices[-1]
    examples = reader().head.examples
    pairs = [(turn.parts[0].content, json.loads(label.parts[0].content)["label"]) for turn, label in pairwise_of(shots)]
    assert len(pairs) >= 10 and all(said in examples[label] for said, label in pairs)
    assert "step.time" in {label for _, label in pairs}
    assert str(asked.parts[0].content).startswith("(Where things stand: no run yet")


def pairwise_of(messages: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Each turn with its answer."""
    yield from zip(messages[::2], messages[1::2], strict=True)


def test_a_figure_in_the_words_is_still_held_to_the_records(routed: Routed) -> None:
    said = routed.say("how many runs are there?", "hm, let me see", "You have 98317 runs.")  # no machine tells that
    assert "98317 runs" not in said and "left out" in said


@pytest.mark.parametrize("code_first", [True, False])
@pytest.mark.parametrize(
    "said",
    [
        "was it a lot of stuff in the end",
        "wie viele beispiele hatte ich selbst geschrieben in r8",
        "do you like opera at all",
        "my neighbour sings opera in the shower",
        "it's way too fat for the little box it has to live on",
        "asdkjh qwe ;;; 9",
    ],
)
def test_words_that_fit_no_label_get_none_of_the_drivers_own(routed: Routed, said: str, code_first: bool) -> None:
    """A small model that found no label made tools up, refused, said the screen again, or told what is not so."""
    routed.deps.code_first = code_first
    answer = routed.say(said, '{"label": "none"}', "The model is now running.")
    assert "now running" not in answer and routed.shown == []
    assert ("There is no run r8; there is none yet" if "r8" in said else "no run yet") in answer


UNSURE = "the whole history, roughly"
"""Most likely all runs, says the reader, with too little certainty."""


def test_a_choice_among_unsure_words_is_told_as_a_guess(routed: Routed) -> None:
    routed.deps.code_first = True
    run = routed.store.new_run("tickets", plan={"steps": [{"stage": "base"}]})
    said = routed.say(UNSURE, '{"label": "runs.all"}')
    assert "with little certainty; or did you mean" in said and run in said and routed.shown == []


def test_a_choice_that_the_reader_does_not_share_is_asked_about(
    routed: Routed, monkeypatch: pytest.MonkeyPatch
) -> None:
    routed.deps.code_first = True
    words = "roughly, the history of it all"
    unsure = replace(read(words, Context(moment="empty")), probability=0.2, sure=False)  # too little for a guess
    for module in ("routed", "by_code"):
        monkeypatch.setattr(f"tunesmith.agent.driver.{module}.read", lambda *_: unsure)
    likely = unsure.likely
    other = next(label for label in likely[1:] if kind_of(label) not in (kind_of(likely[0]), "page", "term"))
    said = routed.say(words, json.dumps({"label": other}))
    stands, _, offered = said.partition("Did you mean: ")
    assert offered.startswith(f"1 “{reader().head.offer(other)}”, 2 “")
    assert offered.count("“") == 3 and "There is no run yet" in stands and routed.shown == []
    assert any("Did you mean: 1 “" in line and line.endswith("in other words.") for line in routed.said)


@pytest.mark.heavy
def test_what_the_driver_doubts_is_answered_beside_where_things_stand_and_its_choice_is_offered(
    routed: Routed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is not sure answers no less with a driver than without one."""
    routed.deps.code_first = True
    run = routed.store.new_run("tickets", plan={"steps": [{"stage": "base"}]})
    unsure = replace(read(UNSURE, Context()), probability=0.6, sure=False)
    for module in ("routed", "by_code"):
        monkeypatch.setattr(f"tunesmith.agent.driver.{module}.read", lambda *_: unsure)
    said = routed.say(UNSURE, '{"label": "steps.time"}')
    assert "Perhaps you ask for this." in said and run in said and "with little certainty" in said
    assert f"1 “{reader().head.offer('steps.time')}”" in said and routed.shown == []


@pytest.mark.parametrize("label", ["remark", "want"])
def test_what_both_only_suppose_to_be_a_remark_or_a_wish_gets_where_things_stand(
    routed: Routed, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    routed.deps.code_first = True
    routed.store.new_run("tickets", plan={"steps": [{"stage": "base"}]})
    words = "the old bot was nicer to talk to"
    unsure = replace(read(words, Context()), label=label, likely=(label,), probability=0.6, sure=False, request=None)
    for module in ("routed", "by_code"):
        monkeypatch.setattr(f"tunesmith.agent.driver.{module}.read", lambda *_: unsure)
    said = routed.say(words, json.dumps({"label": label}))
    assert "nothing was changed or begun" in said and "1 of 4" not in said and routed.shown == []


def test_what_both_suppose_and_nobody_can_answer_here_gets_where_things_stand_and_no_error(
    routed: Routed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a plan open and no run yet, what was forgotten is a question that the records cannot answer."""
    routed.deps.code_first = True
    routed.deps.draft = PipelinePlan(name="tickets", steps=(StepSpec(stage="train"),))
    words = "and all that it knew?"
    unsure = replace(read("which general cases did it lose", Context()), probability=0.3, sure=False)
    for module in ("routed", "by_code"):
        monkeypatch.setattr(f"tunesmith.agent.driver.{module}.read", lambda *_: unsure)
    monkeypatch.setattr(reader(), "read", lambda *_: unsure)
    said = routed.say(words, json.dumps({"label": unsure.label}))
    assert "I did not understand that" in said and "“start it” begins it" in said and routed.shown == []


def test_cases_that_a_guess_shows_stay_on_the_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(tmp_path / "home")[0].close()
    routed = Routed(tmp_path / "home", [])
    routed.deps.code_first = True
    words = "which cases did the adapter fail?"
    unsure = replace(read(words, Context()), probability=0.6, sure=False)
    for module in ("routed", "by_code"):
        monkeypatch.setattr(f"tunesmith.agent.driver.{module}.read", lambda *_: unsure)
    said = routed.say(words, json.dumps({"label": unsure.label}))
    assert "My parcel" in said and "with little certainty" in said
    stored = [row["content"] for row in routed.store.read("SELECT content FROM conversations")]
    assert stored and not any("My parcel" in content for content in stored)
    routed.chat.close()


@pytest.mark.parametrize("context_tokens", [1024, 4096])
def test_whatever_its_context_holds_a_routed_driver_has_every_tool_that_reads(
    routed: Routed, context_tokens: int
) -> None:
    """It reads no descriptions, so none makes room: a call that was chosen rightly had met “Unknown tool name”."""
    asked = {
        "rows.reasons": "what was it about the rows that got thrown out",
        "fits.fit": "is the 1.5b too much for this laptop",
        "setting.value": "who picked the learning rate",
        "artifact.path": "where does the adapter lie",
        "runs.all": "list my runs",
        "steps.longest": "where did the time go",
    }
    for label, words in asked.items():
        routed.deps.window = replace(routed.deps.window, context_tokens=context_tokens)
        routed.say(words, json.dumps({"label": label}))
    told = [row["content"] for row in routed.store.read("SELECT content FROM conversations WHERE role = 'messages'")]
    assert sum("tool-return" in content for content in told) == len(asked)
    assert not [content for content in told if "Unknown tool name" in content]
