"""Kept rows in the shares that were drawn: what is easy to write does not crowd out what is hard."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tests.fixtures.behaviours import ERRANDS
from tests.fixtures.tables import table
from tunesmith.memory.records import KEEP, TrainingRow, Verdict
from tunesmith.memory.row_attributes import Draw, RowAttributes
from tunesmith.tools.data.balance import alarms, best
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.reading import answer_request

MOODS = ("glad", "sad", "both", "none")
SPEC = spec_of(
    {
        "name": "mood",
        "say": "the mood of a note",
        "what": "JSON with mood: glad, sad, both or none",
        "labels": dict.fromkeys(MOODS, ""),
        "examples": [{"prompt": f"note {n}", "answer": f'{{"mood": "{mood}"}}'} for n, mood in enumerate(MOODS)],
    },
    "test",
)


def rows(kept: dict[str, int], drawn: int = 40) -> list[TrainingRow]:
    made = []
    for mood in MOODS:
        for n in range(drawn):
            verdict = Verdict(KEEP) if n < kept[mood] else Verdict("reading")
            told = RowAttributes(draw=Draw("", ({"mood": mood},), ({},), n), attempt=1 + (n % 3 == 2))
            turns = (
                [{"role": "user", "content": f"{mood} {n}"}],
                [{"role": "assistant", "content": f'{{"mood": "{mood}"}}'}],
            )
            made.append(TrainingRow(f"{mood}{n:03d}", "generated", *turns, told, verdict=verdict))
    return made


def counts(judged: list[TrainingRow]) -> dict[str, int]:
    return dict(
        Counter(str(row.attributes.draw and row.attributes.draw.values["mood"]) for row in judged if row.usable)
    )


@table("kept", [(28, 25, 14, 10), (40, 40, 20, 18), (30, 20, 20, 14)])
def test_every_share_is_within_the_alarm_afterwards_and_the_rare_keep_all(kept: tuple[int, ...]) -> None:
    before = rows(dict(zip(MOODS, kept, strict=True)))
    after = best(SPEC, before)
    assert alarms(SPEC, before, [row for row in before if row.usable]) != ()
    assert alarms(SPEC, after, [row for row in after if row.usable]) == ()
    assert counts(after)["none"] == kept[3] and sum(counts(after).values()) >= 0.6 * sum(kept)
    dropped = [row for row in after if row.verdict and row.verdict.kind == "balance"]
    assert dropped and dropped[0].attributes.attempt == 2, "late attempts go first"


def test_what_is_balanced_loses_nothing_and_what_cannot_be_keeps_three_of_five() -> None:
    even = rows(dict.fromkeys(MOODS, 20))
    assert best(SPEC, even) == even
    hopeless = best(SPEC, rows({"glad": 40, "sad": 40, "both": 20, "none": 1}))
    assert sum(counts(hopeless).values()) >= 0.6 * 101 - 4 and counts(hopeless)["none"] == 1


def test_of_more_rows_than_are_wanted_the_surest_of_each_value_stay() -> None:
    """Rows of "glad" are read with the widest margins, and still leave each other value its share."""
    many = [
        replace(row, attributes=replace(row.attributes, margin=(9.0 if row.row_id.startswith("glad") else 1.0) + n % 7))
        for n, row in enumerate(rows(dict.fromkeys(MOODS, 30)))
    ]
    after = best(SPEC, many, 80)
    assert counts(after) == dict.fromkeys(MOODS, 20)
    left_out = [row for row in after if row.verdict and row.verdict.kind == "surplus"]
    for mood in MOODS:
        kept = [row.attributes.margin or 0 for row in after if row.usable and row.row_id.startswith(mood)]
        assert min(kept) >= max(row.attributes.margin or 0 for row in left_out if row.row_id.startswith(mood))


def test_where_a_value_is_lacking_the_others_make_up_the_number() -> None:
    after = best(SPEC, rows({"glad": 30, "sad": 30, "both": 30, "none": 18}), 90)
    assert counts(after)["none"] == 18 and sum(counts(after).values()) == 90 and max(counts(after).values()) <= 29
    assert best(SPEC, rows(dict.fromkeys(MOODS, 20)), 90) == rows(dict.fromkeys(MOODS, 20))


ERRAND = spec_of(dict(ERRANDS), "test")


def test_a_part_that_no_kept_row_lacks_raises_an_alarm() -> None:
    def errands(missing: int) -> list[TrainingRow]:
        drawn = RowAttributes(draw=Draw("r", (), (), ()))
        who = ["anyone" if n < missing else "Lena" for n in range(40)]
        answers = [[{"role": "assistant", "content": f"{name}: feed the cat"}] for name in who]
        return [
            TrainingRow(f"r{n}", "generated", [{"role": "user", "content": "m"}], answer, drawn, verdict=Verdict(KEEP))
            for n, answer in enumerate(answers)
        ]

    never, some = errands(0), errands(8)
    assert [line for line in alarms(ERRAND, never, never) if line.startswith("WHO is missing in 0%")]
    assert not [line for line in alarms(ERRAND, some, some) if line.startswith("WHO is missing")]


@table("turn", range(5))
def test_a_reader_is_shown_what_stands_for_a_missing_part(turn: int) -> None:
    named = [(f"Lena does {n}", f"Lena: do {n}") for n in range(12)]
    shots = [*named, ("somebody must run", "anyone: run"), ("all is fine", "Nothing.")]
    request = answer_request(ERRAND, "Max sings", shots, "model", "id", turn)
    answers = [turn["content"] for turn in request.messages if turn["role"] == "assistant"]
    assert {"anyone: run", "Nothing."} < set(answers)


@table(
    ("signed_in", "signed_out", "told"), [(30, 0, True), (28, 3, True), (15, 12, False), (30, 30, False), (0, 30, True)]
)
def test_a_value_that_tells_the_label_by_being_there_raises_an_alarm(
    signed_in: int, signed_out: int, told: bool
) -> None:
    """All rows of one label were signed and none of the other: a model learned the signature."""
    spec = spec_of(
        {
            "name": "club", "say": "one line", "what": "[label] name, - for none",
            "examples": [{"prompt": "in. Lou", "answer": "[IN] Lou"}, {"prompt": "not me", "answer": "[OUT] -"},
                         {"prompt": "see you, Ann", "answer": "[IN] Ann"}],
            "attributes": [{"name": "label", "values": {"IN": {"means": "they come"}, "OUT": {"means": "not"}}},
                           {"name": "name", "kind": "copied", "means": "who", "absent_share": 0.3, "absent_as": "-"}],
            "answer": {"form": "text", "template": "[{label}] {name}"},
        },
        "test",
    )  # fmt: skip
    kept = []
    for label, signed in (("IN", signed_in), ("OUT", signed_out)):
        for n in range(30):
            answer = f"[{label}] {f'Ann{n}' if n < signed else '-'}"
            turns = [{"role": "user", "content": f"{label} {n}"}], [{"role": "assistant", "content": answer}]
            kept.append(TrainingRow(f"{label}{n:03d}", "own", *turns, verdict=Verdict(KEEP)))
    assert any("in place of what" in line for line in alarms(spec, kept, kept)) == told
