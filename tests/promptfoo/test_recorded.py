"""Our grading held to what promptfoo itself said about the corpus. `make crosscheck` compares with it live."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.promptfoo.pairs import RECORDED, digest, our_verdicts, read_pairs, same
from tunesmith.tools.suites.grading import supported_types

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    recorded = json.loads(RECORDED.read_text())
    assert recorded["corpus"] == digest(), "the corpus changed: record it again with `make crosscheck RECORD=1`"
    return our_verdicts(read_pairs(), tmp_path_factory.mktemp("pairs")), recorded["verdicts"]


def test_every_pair_is_decided_and_scored_as_promptfoo_decides_and_scores_it(
    verdicts: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    ours, theirs = verdicts
    compared = [pair for pair in read_pairs() if not pair.differs and not pair.refused]
    wrong = [(p.what, theirs[p.id], ours[p.id]) for p in compared if not same(ours[p.id], theirs[p.id])]
    assert not wrong, f"{len(wrong)} of {len(compared)} pairs differ, first: {wrong[:5]}"
    assert len(compared) > 300


def test_every_documented_difference_is_still_one(verdicts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    ours, theirs = verdicts
    documented = [pair for pair in read_pairs() if pair.differs or pair.refused]
    assert documented
    assert [pair.what for pair in documented if same(ours[pair.id], theirs[pair.id])] == []


def test_the_corpus_covers_every_type_in_both_forms(tmp_path: Path) -> None:
    def types(assertions: list[dict[str, Any]]) -> set[str]:
        return {a["type"] for a in assertions} | {t for a in assertions for t in types(a.get("assert", []))}

    covered = set().union(*(types(pair.test.get("assert", [])) for pair in read_pairs()))
    # assert-set has no not- form; is-code is a type of our own.
    wanted = {form for kind in supported_types() for form in (kind, f"not-{kind}")}
    assert wanted - covered == {
        "not-assert-set", "is-code", "not-is-code",
    }  # fmt: skip
