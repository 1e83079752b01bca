"""What the pattern readers make of plain words: the typed question, and its fact in the first line."""

from __future__ import annotations

import re

import pytest

from tests.driver.exam_home import make_exam_home
from tunesmith.agent.driver.understanding.entities import sentence_of
from tunesmith.agent.driver.understanding.questions import query_of
from tunesmith.agent.driver.understanding.typed import typed
from tunesmith.agent.queries.answer import Answer, Context
from tunesmith.agent.queries.registry import answer
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.workspace import Workspace


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(make_exam_home(tmp_path_factory.mktemp("facts") / "home"))


def told(store: Store, words: str) -> tuple[str, Answer]:
    """The kind that some words ask for, and its answer."""
    query = query_of(sentence_of(words, store.runs()))
    assert query is not None, f"nobody reads {words!r}"
    request = typed(query)
    return request.kind, answer(
        request, Context(Workspace(store, None, lambda event, **data: None), store.newest_run())
    )


FIRST: list[tuple[str, str, str]] = [
    ("gpu?", "machine", r"GPU"),
    ("could a 24 GB card train a 7b?", "fits", r"^Yes: training a 7B model"),
    ("how many runs are there", "runs", r"2 runs, the newest is r2"),
    ("status of r1?", "run", r"r1 \(ticket-triage\)"),
    ("what steps did r1 have", "run", r"r1 has 13 steps, 12 done"),
    ("how long did training take in r1", "step", r"train took 2 min 32 s \(s\d+ of r1"),
    ("peak memory of the merge in r2?", "step", r"Peak memory 1\.2 GiB"),
    ("what failed in r1?", "steps", r"train \(s\d+ of r1\) failed"),
    ("how many tokens was it trained on in r2", "figure", r"58,113"),
    ("pass rate of the quantized model on target in r1", "result", r"57 of 60"),
    ("which target cases does the adapter fail in r1?", "cases", r"fails 1 of 60 target cases"),
    ("did quantizing lose target cases in r1?", "cases", r"^Yes: 2 target cases"),
    ("what does the adapter answer in target-017 of r1?", "case", r"target-017"),
    ("base vs adapter in r1", "compare", r"r1 .*base → adapter"),
    ("compare r1 and r2", "compare_runs", r"r1 .* and r2"),
    ("why rank 16 in r1?", "setting", r"lora_rank was 16 in train"),
    ("who approved the training of r1", "approvals", r"2 plans of train were approved"),
    ("did anything start without asking me?", "approvals", r"^No: each of the"),
    ("how many rows were kept in r1", "rows", r"138 rows were kept"),
    ("any duplicates in r1's rows?", "rows", r"20 rows were dropped as"),
    ("why was row g003 of r1 dropped?", "row", r"Row g003 of r1 .* was dropped: near-duplicate"),
    ("how did the validation loss go in r1", "curve", r"from 2\.314 to 0\.221"),
    ("how big is the adapter of r1", "artifact", r"19\.0 MiB"),
    ("what was r1's quantized model made from?", "artifact", r"merged"),
    ("try the model", "trial", r"^Type /ask and a message: the base and the quantized model of r2"),
    ("where is my model?", "trial", r"^The quantized model of r2 .* lies in "),
    ("show me before and after in r1", "trial", r"^r1, base → quantized: of 105 cases"),
    ("is anything served?", "served", r"[Ss]erved"),
    ("what is running?", "jobs", r"Nothing is running"),
    ("what should i try next?", "findings", r"r2"),
    ("is r1 overfitting?", "findings", r"[Oo]verfitting"),
    ("what's the peak memory of quantize in r1", "step", r"Peak memory"),
    ("what is the loss of r1 at the end?", "curve", r"to 0\.221"),
    ("how long until training finishes?", "jobs", r"Nothing is running"),
    ("how do i get it to 80%?", "findings", r"r2"),
    ("which rules does every answer have to keep?", "described", r"rules:"),
    ("what criteria are there?", "described", r"criteri"),
    ("did general knowledge suffer in r1?", "result", r"^general in r1"),
    ("are 84 rows enough?", "findings", r"r2"),
    ("why wasn't r1 deployed?", "findings", r"r1"),
    ("which messages fool the adapter in r1?", "cases", r"fails"),
    ("how many of the blind ones pass in r1?", "result", r"adapter 59 of 60"),
    ("which run had the higher learning rate?", "across", r"alike in learning_rate: 0\.0005"),
    ("how many rows did each run train on?", "across", r"123 to train on"),
    ("which category does the adapter get wrong most often in r1?", "confusion", r"r1"),
    ("which labels does the reader mix up in r1?", "confusion", r"reader|r1"),
    ("what did i approve yesterday?", "approvals", r"^Nothing was decided on 20"),
    ("which cases flipped from prompted to quantized in r1?", "cases", r"prompted model was not measured"),
    ("how many test cases are there per block in r1?", "suite", r"105 cases"),
    ("did the training of r1 run out of memory?", "steps", r"signal 9|want of memory"),
    ("what's the biggest artifact on disk?", "disk_use", r"^The largest is base"),
    ("how much disk do all my runs use?", "disk_use", r"artifacts of 2 runs take"),
    ("which row was the longest in r1?", "rows", r"^The longest row of r1 is"),
    ("is rank 64 overkill in r1?", "setting", r"^Its rule cannot be asked now"),
    ("what does the adapter answer in general-shop-1 of r1?", "case", r"^r1 asked no case general-shop-1"),
]


@pytest.mark.parametrize(("words", "kind", "fact"), FIRST, ids=[words for words, _, _ in FIRST])
@pytest.mark.heavy
def test_the_fact_that_is_asked_for_stands_in_the_first_line(store: Store, words: str, kind: str, fact: str) -> None:
    got, found = told(store, words)
    assert got == kind
    assert re.search(fact, found.lines[0]), found.lines
    assert len(found.lines) <= 11


def test_what_cannot_be_priced_from_these_records_is_said_with_what_to_try(store: Store) -> None:
    with pytest.raises(BadInput, match=r"generate cannot be priced .* is missing"):
        told(store, "how long would 5k rows take?")


@pytest.mark.parametrize("words", ["why did r9 stop?", "how long did training take in r77?", "compare r1 and r8"])
def test_a_run_that_is_not_there_is_said_with_those_that_are(store: Store, words: str) -> None:
    with pytest.raises(NotFound, match=r"There is no run r\d+; the runs are r2 .*, r1"):
        told(store, words)
