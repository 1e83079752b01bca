"""Figures in a driver's words: known ones and those computed from one result are said, any other one is marked."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

from tests.agent.driver import figure_sentences as sentences
from tests.fixtures.tables import table
from tunesmith.agent.driver.figures import MARK, Ledger, hold


def told(*turns: Iterable[Any]) -> Ledger:
    """A ledger of these turns, the oldest first."""
    ledger = Ledger()
    for turn in turns:
        ledger.begin_turn()
        for result in turn:
            ledger.note(result)
    return ledger


def missing(sentence: str, *results: Any) -> list[str]:
    """The figures that are marked where one turn was told these results."""
    return hold(sentence, told(results))[1]


def test_of_a_hundred_true_and_a_hundred_invented_sentences_at_most_three_are_taken_for_the_other() -> None:
    turns = (sentences.LONG_AGO, sentences.TWO_AGO, sentences.ONE_AGO, sentences.NOW)
    refused = [one for one in sentences.TRUE if hold(one, told(*turns))[1]]
    passed = [one for one in sentences.INVENTED if not hold(one, told(*turns))[1]]
    print(f"refused of {len(sentences.TRUE)} true: {len(refused)}; passed of {len(sentences.INVENTED)}: {len(passed)}")
    assert len(sentences.TRUE) == len(sentences.INVENTED) == 100
    assert len(refused) <= 3 and len(passed) <= 3, (refused, passed)


# What is a figure


@table(
    ("text", "found"),
    [
        ("It takes 10-20 minutes.", ["10", "20 minutes"]),
        ("A 50-60% gain.", ["50", "60%"]),
        ("Accuracy reached ninety percent.", ["ninety percent"]),
        ("It has .95 accuracy.", [".95"]),
        ("_97_ runs, **98** runs", ["97", "98"]),
        ("2 min 32 s, dann zwölf Läufe, 5 por ciento, 2,5 GiB", ["2 min 32 s", "zwölf", "5 por ciento", "2,5 GiB"]),
        ("It ended at 17:05 on 2026-11-12.", ["17:05", "2026-11-12"]),
        ("One of them is W8A8, on llama-3.2 or Qwen2.5-7B with vLLM 0.32.1, in r1, step s12, a 7B, the 3rd.", []),
        ("An RTX 3060 or a GeForce 4090 does for Llama 3 and Python 3.11.", []),
        ("1. Get the base.", []),
    ],
)
def test_a_figure_is_found_however_it_is_written_and_a_name_is_none(text: str, found: list[str]) -> None:
    assert missing(text) == found


def test_an_unsupported_figure_is_marked_and_its_sentence_stays() -> None:
    text, figures = hold("It reached 97 % in 2 min 32 s, on 60 cases.", told([{"cases": 60}]))
    assert text == f"It reached {MARK} in {MARK}, on 60 cases." and figures == ["97 %", "2 min 32 s"]


@table(
    "text",
    ["1e999 rows", f"about {'9' * 400} rows", "a-" * 3000 + "1", "[" * 5000, "٣ rows", '{"x_at": 1e20, "n": NaN}'],
)
def test_no_words_of_anybody_break_the_reading_of_figures(text: str) -> None:
    assert hold(f"It has 5 rows. {text}", told([text, f'{{"n": {"9" * 400}, "made_at": 9e15}}']))[1][:1] == ["5"]


# What is known


@table(
    ("sentence", "result"),
    [
        ("It took 152 s, or 2.5 minutes.", {"seconds": 152.3}),
        ("It took 2 min 32 s.", {"seconds": 152.3}),
        ("Es dauerte 1 h 12 min, or 1h12m.", {"estimated_seconds": 4338}),
        ("It ended at 11:14 on 2026-11-18.", {"ended_at": "2026-11-18T11:14"}),
        ("It is 2.3 GiB.", {"peak_bytes": 2469606195}),
        ("It is 2,5 GB.", {"peak_bytes": 2469606195}),
        ("95 % pass, a share of 0.95.", {"share": 0.95}),
        ("1,834 or 1.834 or 1 834 rows, about 1.8k", {"rows": 1834}),
        ("Roughly 1,800 rows.", {"rows": 1834}),
        ("Sixteen and sechzehn.", {"lora_rank": 16}),
        ("About 150 s on average.", {"average": 152.3}),
        ("It took 16 to 28 s.", "16 to 28 s"),
        ("Three runs, two of them failed.", [{"s": "done"}, {"s": "failed"}, {"s": "failed"}]),
        ("r1 and r3: two runs.", {}),
    ],
)
def test_what_a_result_holds_is_known_in_any_unit_and_rounding(sentence: str, result: Any) -> None:
    assert missing(sentence, result) == []
    assert missing(sentence, json.dumps(result) if not isinstance(result, str) else result) == []


@table("result", ["disk: 37 GiB free", "merge took 37 s", "37 % of memory is used", "step s37", {"seconds": 37}])
def test_a_size_a_time_and_a_share_are_no_count(result: Any) -> None:
    assert missing("You have 37 runs.", result) == ["37"]
    assert missing("You have 37 runs.", result, "runs: 37") == []


@table(
    ("sentence", "result"),
    [
        ("It took 152 minutes.", {"seconds": 152}),
        ("It took 37 s.", {"rows": 37}),
        ("It takes 19.5 MiB.", "it needs 19.5 GiB"),
        ("59 % pass.", {"passed": 59, "total": 417}),
        ("It took 153 s.", {"seconds": 152}),
        ("One of 1 run.", {"share": 0.6}),
        ("r1 lost 0 rows.", {"rows": 5}),
    ],
)
def test_another_unit_another_kind_and_one_off_are_not_known(sentence: str, result: Any) -> None:
    assert len(missing(sentence, result)) == 1


def test_a_figure_of_two_turns_ago_is_known_and_one_of_three_turns_ago_is_not() -> None:
    turns = [{"rows": 8341}], ["a"], ["b"]
    assert hold("It has 8,341 rows.", told(*turns))[1] == []
    assert hold("It has 8,341 rows.", told(*turns, ["c"]))[1] == ["8,341"]
    ledger = told(*turns)
    ledger.clear()
    assert hold("It has 8,341 rows.", ledger)[1] == ["8,341"]


def test_behind_the_name_of_a_run_no_figure_of_another_one_is_known() -> None:
    facts = {"of": {"runs": "r1, r2"}, "facts": [{"run": "r1", "seconds": 204.4}, {"run": "r2", "seconds": 611.0}]}
    assert missing("r1 took 204 s, r2 611 s.", facts) == missing("It took 611 s.", facts) == []
    assert missing("r1 took 611 s.", facts) == ["611 s"]
    assert missing("r1 was faster: 204 s against 611 s, 407 s less.", facts) == [], "its own figure stands beside"


# What is computed

TIMES = (
    "train took 2 min 32 s (s7 of r1, 2026-11-18 11:11), estimated 2 min 40 s.\n"
    "Peak memory 2.3 GiB, estimated 2.4.\nResult: steps 75\nmerge took 18.0 s (s9 of r1), estimated 16 s."
)
PASSED = "target: base 2 of 60, adapter 59 of 60, quantized 57 of 60\ngeneral: base 20 of 24, adapter 19 of 24"


@table(
    ("result", "text"),
    [
        (TIMES, "Training took 2 min 14 s longer than merging."),
        (TIMES, "Training took 134 seconds longer than merging."),
        (TIMES, "It took 8.4 times as long."),
        (TIMES, "Together they took 2 min 50 s."),
        (TIMES, "Merging took 12 % of the time of training."),
        (TIMES, "Training took 8 s less than estimated."),
        (TIMES, "That is 2.03 s per step."),
        (TIMES, "That is 30 steps per minute."),
        (PASSED, "57 more cases pass with the adapter."),
        (PASSED, "The quantized one passes 97% of what the adapter passes."),
        ("", "57 of 60 pass, that is 95 %, so 3 fail."),
    ],
)
def test_what_two_figures_of_one_result_or_of_the_sentence_come_to_is_said(result: str, text: str) -> None:
    assert missing(text, result or {"passed": 57, "total": 60}) == []


@table(
    ("result", "text", "wrong"),
    [
        (TIMES, "It took 37 s longer.", ["37 s"]),
        (TIMES, "That is 71 % less.", ["71 %"]),
        (TIMES, "Together they took 4 min 10 s.", ["4 min 10 s"]),
        (TIMES, "The rest took 2.03 s.", ["2.03 s"]),
        (PASSED, "33 more cases pass.", ["33"]),
        (PASSED, "It gained 46 cases.", ["46"]),
        ("lora_rank was 16, epochs were 2", "That makes 32 of them.", ["32"]),
        ("", "It took 12 s longer.", ["12 s"]),
    ],
)
def test_what_no_two_figures_come_to_is_marked(result: str, text: str, wrong: list[str]) -> None:
    assert missing(text, result) == wrong


@table(
    ("text", "results"),
    [
        ("It took 134 s longer.", ["train took 152 s", "merge took 18 s"]),
        ("That is 2.03 s per step.", [{"seconds": 152.0}, {"steps": 75}]),
        ("47 % of them.", [{"passed": 35}, {"total": 75}]),
    ],
)
def test_figures_of_two_results_are_not_set_against_each_other(text: str, results: list[Any]) -> None:
    assert len(missing(text, *results)) == 1
    together = {"facts": results} if isinstance(results[0], dict) else " ".join(map(str, results))
    assert missing(text, {**results[0], **results[1]} if isinstance(results[0], dict) else together) == []


def test_figures_of_two_results_count_once_the_sentence_names_them() -> None:
    results = ["train took 152 s", "merge took 18 s"]
    assert missing("152 s and 18 s, together 170 s.", *results) == []
    assert missing("152 s and 18 s, together 190 s.", *results) == ["190 s"]


def test_where_much_was_told_a_made_up_figure_seldom_passes_for_a_computed_one() -> None:
    chance = random.Random(0)
    facts = [{"step": f"s{n}", "seconds": chance.randint(5, 900), "rows": chance.randint(5, 900)} for n in range(12)]
    made_up = [f"It took {chance.randint(10, 99)} % longer." for _ in range(100)]
    passed = [text for text in made_up if not missing(text, {"facts": facts})]
    assert len(passed) <= 10, passed
