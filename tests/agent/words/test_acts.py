"""Orders and changes of the plan: what sets a value, what holds an order back, and what nothing took."""

from __future__ import annotations

from tests.fixtures.tables import table
from tunesmith.agent.words.acts import Order, assigned, edits_of, holds_back, order_of
from tunesmith.agent.words.reading import Context, names_no_step, read, reader
from tunesmith.agent.words.slots import Slots, slots_of

PLANNED = ("base", "baseline", "generate", "critique", "preflight", "train", "evaluate", "merge", "quantize", "deploy")
_STAGES = ("quantize", "evaluate", "train", "release", "deploy", "generate", "merge")


def ordered(said: str) -> tuple[Slots, Order]:
    """The order of the first stage that a sentence names, else of a training."""
    slots = slots_of(said)
    stage = next(stage for stage in (*slots.values("stage"), "train") if stage in _STAGES)
    return slots, order_of(stage, slots, reader().known(f"do.{stage}"))


HELD_BACK = (
    "merge it, not now", "train again, but not right now", "trainiere noch mal, nur nicht jetzt",
    "quantifie encore une fois mais pas maintenant", "train again without mine", "trainiere nie wieder",
    "quantifie-le si c'est bon", "déploie-le quand c'est fini", "entraîne à nouveau quand je serai là",
    "deploy het als het klaar is", "despliega el modelo si está bien", "metti online il modello se è pronto",
    "wytrenuj ponownie gdy będzie gotowy", "trainiere noch mal, nachdem du fertig bist",
    "train again with rank from 8 to 4, no wait, 16", "train with rank 16, no wait", "train it further with epochs 2",
    "train r1 more", "train it a bit further", "trainiere noch mal anders", "train again otherwise", "train again soon",
    "deploy it at the end", "entrena otra vez al final", "trainiere noch mal zum Schluss",
    "merge it into the other one", "quantize it when r1 is good", "merge it if r1 is better", "train it again, not r1",
    "treina de novo quando eu voltar", "addestra di nuovo appena finisce", "train opnieuw zodra je klaar bent",
    "wytrenuj jeszcze raz, ale nie teraz", "entrena otra vez pero no ahora", "addestra di nuovo ma non adesso",
    "treina de novo, mas não agora", "train nog een keer, maar niet nu", "merge it, wait", "deploy it alongside r1",
    "quantisiere es, sobald es geht und alles da ist", "déploie-le dès que c'est prêt", "train tomorrow", "train later",
    "trainiere morgen", "entrena mañana", "treina amanhã", "trenuj jutro", "deploy the best one", "despliega el mejor",
    "train with rank 8 for two hours", "train so that it takes 2 hours", "don't import /tmp/rows.jsonl",
)  # fmt: skip
"""Orders with a negation, a condition, a time, another target, a limit or a value taken back."""


@table("said", HELD_BACK)
def test_what_denies_delays_or_limits_an_order_holds_it_back(said: str) -> None:
    slots, order = ordered(said)
    assert holds_back(slots) or order.unread, order


@table(
    "said",
    [
        "quantize the last one straight away", "train with rank 8 one more time", "quantize it when you can",
        "if it's not too much trouble, quantize it to 8 bits", "sei so lieb und trainiere nochmal mit Rang 4",
        "auriez-vous la gentillesse d'évaluer l'adaptateur ?", "cuantiza el último cuanto antes", "merge it",
        "quantiza o último agora mesmo, por favor", "kwantiseer het laatste meteen", "train longer, 6 epochs",
    ],
)  # fmt: skip
def test_haste_and_politeness_hold_nothing_back(said: str) -> None:
    slots, order = ordered(said)
    assert not holds_back(slots) and not order.unread, order


LOOSE = {
    "quantize it with awq": "awq", "evaluate it on gsm8k": "gsm8k", "train it on my emails": "emails",
    "deploy it to frankfurt": "frankfurt", "export r1 as gguf to my usb stick": "usb", "train with unsloth": "unsloth",
    "generate 300 rows about refunds": "refunds", "entrena con mis correos": "correos",
}  # fmt: skip


@table("said", LOOSE)
def test_a_word_that_no_argument_took_is_told_beside_the_price(said: str) -> None:
    assert LOOSE[said] in ordered(said)[1].loose


@table(
    ("stage", "said", "unread"),
    [
        ("train", "train it on /etc/passwd", "/etc/passwd"), ("train", "train with rank 8, at most 2 hours", "2"),
        ("train", "train another adapter with rank 24 and 7", "7"), ("quantize", "quantize it with rank 8", "8"),
        ("quantize", "quantize it to four bits", ""), ("train", "please train again with half the rank", ""),
        ("train", "train without warmup, lr=2e-4", ""), ("evaluate", "evaluate adapter and merged", ""),
    ],
)  # fmt: skip
def test_a_number_or_a_name_that_no_argument_took_is_left_unread(stage: str, said: str, unread: str) -> None:
    found = order_of(stage, slots_of(said), lambda word: True).unread
    assert any(unread in one for one in found) if unread else not found, found


@table(
    ("said", "unread"),
    [("evaluate the turbo model", ("turbo",)), ("evaluate the merged model", ()), ("evaluate it for my fridge", ())],
)
def test_a_model_of_a_name_that_no_arm_has_is_left_unread(said: str, unread: tuple[str, ...]) -> None:
    assert order_of("evaluate", slots_of(said), lambda word: False).unread == unread


def test_an_order_none_of_whose_words_was_read_is_none() -> None:
    for said, gibberish in {"blorp the flurb": True, "merge it": False, "make it smaller": False}.items():
        assert names_no_step(reader().read(said, Context(), "do.merge")) is gibberish, said
    assert not read("blorp the flurb").sure


SET = {
    "rank 16": {"lora_rank": 16}, "from batch size 8 to 16": {"batch_size": 16}, "epochs auf 2": {"epochs": 2.0},
    "rank 8 and 3 epochs": {"lora_rank": 8, "epochs": 3.0}, "lr=2e-4": {"learning_rate": 2e-4},
    "with r1's rows, 2 epochs": {"epochs": 2.0}, "two hundred and fifty rows": {"rows": 250}, "3 of them": {},
    "null Epochen": {"epochs": "zero"},
}  # fmt: skip


@table("said", SET)
def test_a_value_goes_to_the_setting_beside_it(said: str) -> None:
    assert {one.field: one.value for one in assigned(slots_of(said))} == SET[said]


LEFT_OUT = {
    "no deploy and train with rank 8": {"deploy"}, "don't merge or quantize": {"merge", "quantize"},
    "drop merge, quantize and deploy": {"merge", "quantize", "deploy"}, "without the merge, with 8 bits": {"merge"},
    "skip the preflight, I trust you": {"preflight"}, "train it without the merge": {"merge"}, "rank 8": set(),
}  # fmt: skip


@table("said", LEFT_OUT)
def test_a_list_of_steps_is_left_out_whole_and_no_other_one(said: str) -> None:
    assert {*edits_of(slots_of(said), PLANNED, leaves_out=False).without} == LEFT_OUT[said]


def test_of_the_plan_a_step_may_be_denied_and_nothing_else() -> None:
    for said, held in {"without quantizing": "", "no rank 8": "no", "rank 8 instead of 16": "instead of",
                       "cut the rows to 250": "", "cut the rank 8": "cut", "don't set rows to 250": "don't",
                       "leave out the last step": "",
                       "if it fits, rank 8": "if"}.items():  # fmt: skip
        assert holds_back(slots_of(said), of_the_plan=True) == held, said
