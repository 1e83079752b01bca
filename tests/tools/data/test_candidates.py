"""A reading is the likelihood of each candidate, told from the tokens of one answer."""

from __future__ import annotations

import math

import pytest

from tests.fixtures.tables import table
from tunesmith.tools.data.reading import margin, probabilities, yes
from tunesmith.tools.serving.client import ChatResponse

Steps = list[tuple[str, dict[str, float]]]


def answered(*steps: tuple[str, dict[str, float]], text: str = "") -> ChatResponse:
    """Steps with plain probabilities; what a server masks has a log probability of -9999."""
    logs = [(token, {t: math.log(p) if p else -9999.0 for t, p in top.items()}) for token, top in steps]
    return ChatResponse(id="r", text=text or "".join(token for token, _ in steps), steps=logs)


@table(
    ("response", "candidates", "expected"),
    [
        (answered(("quit", {"quit": 0.7, "pa": 0.2, "lost": 0.1})), ("pause", "quit", "lost"), (0.2, 0.7, 0.1)),
        # a first token that two share parts them from the third, the next one parts the two
        (
            answered(("not ", {"not ": 0.8, "urgent": 0.2}), ("due", {"due": 0.75, "open": 0.25})),
            ("not due", "not open", "urgent"),
            (0.6, 0.2, 0.2),
        ),
        # several tokens that begin the same candidate count together
        (answered(("bill", {"bill": 0.5, "b": 0.1, "acc": 0.4})), ("billing", "account"), (0.6, 0.4)),
        # one candidate begins another
        (answered(("bill", {"bill": 1.0}), ("ing", {"ing": 0.9})), ("bill", "billing"), (0.0, 1.0)),
        (answered(("bill", {"bill": 1.0})), ("bill", "billing"), (1.0, 0.0)),
        # a server that is not held to the candidates
        (answered((" Yes", {" Yes": 0.6, "no": 0.2, "Well": 0.2})), ("yes", "no"), (0.75, 0.25)),
        (answered(("好", {"好": 0.9, "差": 0.1}), ("评", {"评": 1.0})), ("好评", "差评"), (0.9, 0.1)),
        (answered(text="no"), ("yes", "no"), (0.0, 1.0)),
        (answered(text="perhaps"), ("yes", "no"), (0.0, 0.0)),
    ],
)  # fmt: skip
def test_each_candidate_has_its_probability(
    response: ChatResponse, candidates: tuple[str, ...], expected: tuple[float, ...]
) -> None:
    likely = probabilities(response, candidates)
    assert tuple(likely[one] for one in candidates) == pytest.approx(expected, abs=1e-4)


def test_the_margin_is_the_log_odds_against_the_next() -> None:
    likely = {"a": 0.6, "b": 0.3, "c": 0.1}
    assert margin(likely, "a") == pytest.approx(math.log(2), abs=0.01)
    assert margin(likely, "c") == pytest.approx(-math.log(6), abs=0.01)
    assert margin({"a": 1.0, "b": 0.0}, "a") < 20, "what is not among the likeliest is not impossible"


def test_yes_is_its_share_of_yes_and_no() -> None:
    assert yes(answered(("no", {"yes": 0.1, "no": 0.3}))) == pytest.approx(0.25)
