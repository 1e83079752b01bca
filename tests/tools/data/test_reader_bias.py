"""A reader that leans to one value: it is shown as many examples of each, and what it leans by is taken off."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from tests.fixtures.scripted_asker import Answering
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.reader import Reader, ToRead
from tunesmith.tools.data.reading import bias_of_known, calibrated, label_request
from tunesmith.tools.serving.client import ChatRequest, ChatResponse

ORDINARY = ("Name a river.", "What is nine times nine?", "Write a poem about snow.")
LEAN = 3.0


def spec(hot: int, cold: int) -> object:
    examples = [{"prompt": f"the oven of flat {n} glows", "answer": "HOT"} for n in range(hot)]
    examples += [{"prompt": f"the pipe of flat {n} has ice on it", "answer": "COLD"} for n in range(cold)]
    values = {"HOT": {"means": "too warm"}, "COLD": {"means": "too cold"}}
    return spec_of(
        {
            "name": "heat", "when": "a tenant reports something", "what": "one word", "examples": examples,
            "attributes": [{"name": "label", "values": values}], "answer": {"form": "text", "template": "{label}"},
        },
        "x",
    )  # fmt: skip


def leaning(request: ChatRequest) -> ChatResponse:
    """A model that tells a glow from ice by two nats, and has three for HOT whatever it reads."""
    text = str(request.messages[-1]["content"])
    ordinary = not ("glows" in text or "ice" in text)
    hot = LEAN + (2.0 if "glows" in text else -2.0)
    odds = {"HOT": -9.0, "COLD": -9.0, "none": 0.0} if ordinary else {"HOT": hot, "COLD": 0.0, "none": -9.0}
    whole = math.log(sum(map(math.exp, odds.values())))
    step = {word: score - whole for word, score in odds.items()}
    best = max(step, key=lambda word: step[word])
    return ChatResponse(id=request.id, text=best, steps=[(best, step)])


@pytest.mark.parametrize(("hot", "cold", "right"), [(6, 6, 1.0), (8, 4, 1.0), (6, 2, 0.75)])
def test_what_a_reader_has_for_a_value_whatever_it_reads_is_taken_off_where_examples_show_it(
    hot: int, cold: int, right: float
) -> None:
    reader = Reader(spec(hot, cold), Answering(leaning), ORDINARY, 5)  # type: ignore[arg-type]
    assert reader.trust.labels == {"label": right}, "two examples of a value are too few to tell"
    iced = ToRead("a", "the window has ice on it", {"label": "COLD"})
    differing = reader.read([iced])["a"].differing
    assert [one.read for one in differing] == ([] if right == 1 else ["HOT"])


@pytest.mark.parametrize("first", [0, 6])
def test_a_request_shows_as_many_examples_of_each_value(first: int) -> None:
    made = spec(6, 6)
    given = [*made.examples[first:], *made.examples[:first]]  # type: ignore[attr-defined]
    made = made.model_copy(update={"examples": tuple(given)})  # type: ignore[attr-defined]
    request = label_request(made, made.labels[0], "a tap drips", ORDINARY, "m", "r")
    shown = Counter(turn["content"] for turn in request.messages if turn["role"] == "assistant")
    assert shown["HOT"] == shown["COLD"] == 3 and shown["none"] == len(ORDINARY)


def test_what_is_taken_off_makes_no_value_of_a_message_that_has_none() -> None:
    sure = {"HOT": 1 - 2e-6, "COLD": 1e-6, "none": 1e-6}
    torn = {"HOT": 0.499, "COLD": 0.499, "none": 0.002}
    bias = bias_of_known([("HOT", sure)] * 3 + [("COLD", torn)] * 3, ["HOT", "COLD"])
    assert calibrated(torn, bias)["COLD"] > 0.9, "of two that it takes for equally likely the one that it leans from"
    nothing = calibrated({"HOT": 0.01, "COLD": 0.04, "none": 0.95}, bias)
    assert max(nothing, key=lambda value: nothing[value]) == "none"
