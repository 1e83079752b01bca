"""Critique finds damaged rows of fourteen kinds and keeps the good ones beside them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.fixtures.planted_faults import cases, damages, good_rows
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.critique import CritiqueRequest
from tunesmith.tools.data.critique_job import Critic
from tunesmith.tools.suites.grading.embedding import model_folder

DEMO = load_behaviour("demo")
KINDS = damages(DEMO)
ROWS, PLANTED = 200, 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_damage_is_caught_and_the_rows_beside_it_stay(kind: str) -> None:
    embeddings = kind == "paraphrased case"
    if embeddings and model_folder() is None:
        pytest.skip("paraphrases are found by the embedding model of the extra `similar`")
    rows = good_rows(DEMO, ROWS)
    chosen = set(random.Random(kind).sample(range(ROWS // 2, ROWS), PLANTED))
    damaged = [KINDS[kind](row, rows, n) if n in chosen else row for n, row in enumerate(rows)]
    judged = Critic(DEMO, cases(DEMO), CritiqueRequest(embeddings=embeddings)).judge(damaged)
    caught = sum(judged[n].dropped for n in chosen)
    lost = [row for n, row in enumerate(judged) if n not in chosen and row.dropped]
    assert caught >= 0.95 * PLANTED, [judged[n] for n in chosen if judged[n].usable][:2]
    assert len(lost) <= 0.03 * (ROWS - PLANTED), [str(row.verdict) for row in lost]


def test_rows_from_elsewhere_are_held_to_their_own_message() -> None:
    """Without what was drawn, code still sees a number that is not in the message, and one that was left out."""
    rows = [replace(row, attributes=RowAttributes()) for row in good_rows(DEMO, 40)]
    broken = []
    for row in rows:
        answer = row.completion[0]["content"]
        if '"order": "' in answer:
            other = [{"role": "assistant", "content": answer.replace('"order": "', '"order": "9')}]
            broken.append(replace(row, row_id=f"x{row.row_id}", completion=other))
    judged = Critic(DEMO, [], CritiqueRequest(embeddings=False)).judge([*rows, *broken])
    kept = [row for row in judged[: len(rows)] if row.usable]
    assert len(kept) >= 0.97 * len(rows), [str(row.verdict) for row in judged[: len(rows)] if row.dropped]
    assert all(row.dropped for row in judged[len(rows) :])
