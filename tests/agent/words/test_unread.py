"""What of an order or of a change of the plan no argument took: what stops it, and what says no argument."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from tests.fixtures.tables import table
from tunesmith.agent.words.acts import Order, assigned, order_of
from tunesmith.agent.words.edits import edits_of, settled_in
from tunesmith.agent.words.lexicon import lexicon
from tunesmith.agent.words.reading import Context, names_no_step, read, reader
from tunesmith.agent.words.slots import slots_of
from tunesmith.agent.words.unmeant import factors, resolved
from tunesmith.agent.words.unread import unread_words
from tunesmith.agent.words.values import numbers_in

PLANNED = ("base", "baseline", "generate", "critique", "preflight", "train", "evaluate", "merge", "quantize", "deploy")
NOW = {"lora_rank": 8, "epochs": 3.0, "rows": 400}
"""What the plan of these tests has."""


def unknown(_: str) -> bool:
    """No word is one of an order's own: what stays is what the words of every order say nothing with."""
    return False


ONLY_ORDERS = {
    "hazme un gguf de r1 para ollama": "release", "muéstrame r1 como carpeta para el hub": "release",
    "mets-le au format gguf": "release", "leg r1 als Ordner für den Hub ab": "release",
    "zet r1 klaar als map voor de hub": "release", "metti r1 in una cartella per l'hub": "release",
    "haz una carpeta de r1 para el hub": "release", "mets r1 dans un dossier pour le hub": "release",
    "quantize r1 ot 8bit pls": "quantize", "can you quantity r1 to for bits": "quantize",
    "quantize the last one straight away": "quantize", "make the finished model smaller": "quantize",
    "quantizza l'ultimo modello, per favore": "quantize", "quantisiere das letzte bitte sofort": "quantize",
    "cuantiza el último cuanto antes": "quantize", "quantifie le dernier tout de suite": "quantize",
    "quantiza o último agora mesmo, por favor": "quantize", "kwantiseer het laatste meteen": "quantize",
    "skwantyzuj ostatni od razu, proszę": "quantize", "quantize it and leave everything else as is": "quantize",
    "evaluate the held-out set": "evaluate", "serve it with vllm on a port": "deploy",
    "put the quantized one on the port": "deploy", "rol bakc": "deploy",
    "train with rank 8 one more time, sory": "train", "train opnieuw met rang 8, ik heb haast": "train",
    "wytrenuj jeszcze raz z rank 8, spieszy mi się": "train", "entrena otra vez con rango 8, tengo prisa": "train",
    "treina com rank 8": "train", "addestra di nuovo con rango 8, ho fretta": "train",
}  # fmt: skip
"""Words that order a step and nothing more → the step."""


@table("said", ONLY_ORDERS)
def test_words_that_say_nothing_keep_no_order_back_in_any_language(said: str) -> None:
    order = order_of(ONLY_ORDERS[said], slots_of(said), lambda word: word in ("carpeta", "dossier", "hub"))
    assert (order.unread, order.beside, order.unvalued) == ((), (), ""), order


STOPPED = {
    "quantize awq": "awq", "quantize it with awq because it is better": "awq", "quantisiere es mit awq": "awq",
    "evaluate mmlu": "mmlu", "evaluate it on gsm8k": "gsm8k", "train tomorrow": "tomorrow", "train later": "later",
    "train het morgen": "morgen", "trenuj jutro": "jutro", "entrena mañana": "mañana", "treina amanhã": "amanhã",
    "train it on my emails": "my emails", "entrena con mis correos": "mis correos", "train with unsloth": "unsloth",
    "release it as safetensors": "safetensors", "release it in another format": "format",
    "deploy it to frankfurt": "frankfurt", "deploy it to frankfurt so that my app can call it": "frankfurt",
    "train on the held-out rows": "the held", "export r1 as gguf to my usb stick": "my usb stick",
    "generate 300 rows about refunds": "refunds", "despliega el mejor": "mejor",
    "train with rank 8 for two hours": "two hours", "train so that it takes 2 hours": "2 hours",
    "quantize quantity": "quantity", "merge it, quantity 4": "quantity 4", "train r1 again, but on dora": "dora",
    "deploy it because the merged one is slow": "slow", "deploy it for everyone": "everyone",
}  # fmt: skip
"""Words of an order that no argument took → what is asked about."""
_STAGES = ("quantize", "evaluate", "train", "release", "deploy", "generate", "merge")


@table("said", STOPPED)
def test_a_word_with_a_content_that_no_argument_took_stops_an_order(said: str) -> None:
    slots = slots_of(said)
    stage = next(stage for stage in (*slots.values("stage"), "train") if stage in _STAGES)
    unread = " ".join(order_of(stage, slots, unknown).unread).lower()
    assert unread and all(word in unread for word in STOPPED[said].split()), unread


def ordered(said: str) -> Order:
    """The order of the first stage that a sentence names, else of a training."""
    slots = slots_of(said)
    stage = next(stage for stage in (*slots.values("stage"), "train") if stage in _STAGES)
    return order_of(stage, slots, reader().known(f"do.{stage}"))


HELD_BACK = (
    "merge it, not now",
    "train again, but not right now",
    "trainiere noch mal, nur nicht jetzt",
    "quantifie encore une fois mais pas maintenant",
    "train again without mine",
    "trainiere nie wieder",
    "quantifie-le si c'est bon",
    "déploie-le quand c'est fini",
    "entraîne à nouveau quand je serai là",
    "deploy het als het klaar is",
    "despliega el modelo si está bien",
    "metti online il modello se è pronto",
    "wytrenuj ponownie gdy będzie gotowy",
    "trainiere noch mal, nachdem du fertig bist",
    "train again with rank from 8 to 4, no wait, 16",
    "train with rank 16, no wait",
    "train it further with epochs 2",
    "train r1 more",
    "train it a bit further",
    "trainiere noch mal anders",
    "train again otherwise",
    "train again soon",
    "deploy it at the end",
    "entrena otra vez al final",
    "trainiere noch mal zum Schluss",
    "merge it into the other one",
    "quantize it when r1 is good",
    "merge it if r1 is better",
    "train it again, not r1",
    "treina de novo quando eu voltar",
    "addestra di nuovo appena finisce",
    "train opnieuw zodra je klaar bent",
    "wytrenuj jeszcze raz, ale nie teraz",
    "entrena otra vez pero no ahora",
    "addestra di nuovo ma non adesso",
    "treina de novo, mas não agora",
    "train nog een keer, maar niet nu",
    "merge it, wait",
    "deploy it alongside r1",
    "quantisiere es, sobald es geht und alles da ist",
    "déploie-le dès que c'est prêt",
)
"""Orders with a negation, a condition, a time, another target or a value taken back that no argument took."""


@table("said", HELD_BACK)
def test_what_limits_an_order_and_is_no_argument_of_it_holds_it_back(said: str) -> None:
    order = ordered(said)
    assert order.unread or order.denied, order


def test_an_order_none_of_whose_words_was_read_is_none() -> None:
    for said, gibberish in {"blorp the flurb": True, "merge it": False, "make it smaller": False}.items():
        slots = slots_of(said)
        assert names_no_step(order_of("quantize", slots, reader().known("do.quantize")), slots) is gibberish, said


NOT_HELD_BACK = (
    "sí, entrena otra vez",
    "si, entrena otra vez con rango 8",
    "train it again if you can",
    "quantize it when you can",
    "no, train it again with rank 8",
    "never mind, train it again with rank 8",
    "trainiere wieder",
    "wait, train it with rank 8",
    "quantifie-le si possible",
    "train het nog een keer als het kan",
    "mach weiter mit dem Training",
    "train again because it did not learn",
    "evaluate the adapter when it's done",
)
"""Orders with a yes, a no to what was said before, or politeness in the words of a condition."""


@table("said", NOT_HELD_BACK)
def test_politeness_and_answers_hold_no_order_back(said: str) -> None:
    order = ordered(said)
    assert not order.unread and not order.denied, order


REASONS = {
    "deploy it {}": (
        "so that my app can call it", "so my colleagues can talk to it", "damit meine App es aufrufen kann",
        "para que mi app pueda llamarlo", "pour que mon appli puisse l'appeler", "così la mia app può chiamarlo",
        "para que meu app possa chamá-lo", "zodat mijn app het kan gebruiken", "żeby moja aplikacja mogła go używać",
        "because my boss keeps asking", "weil mein Chef schon fragt", "porque mi jefe pregunta",
        "parce que mon chef demande", "perché il capo lo chiede", "omdat mijn baas erom vraagt", "bo szef pyta o to",
    ),
}  # fmt: skip
"""An order, and reasons or purposes behind it with no mark before them."""


@table(("order", "reason"), [*((order, one) for order, reasons in REASONS.items() for one in reasons)])
def test_a_reason_behind_a_complete_order_is_named_beside_it_and_keeps_nothing_back(order: str, reason: str) -> None:
    for said in (order.format(reason), f"{reason}, {order.format('')}"):
        found = order_of("deploy", slots_of(said), unknown)
        assert (found.unread, found.beside) == ((), (reason,)), found


CHANGES: dict[str, tuple[dict[str, object], bool]] = {
    "change epochs form 3 to 6": ({"epochs": 6.0}, True),
    "epochs from 3 to 6": ({"epochs": 6.0}, True),
    "von 3 auf 6 Epochen": ({"epochs": 6.0}, True),
    "from batch size 8 to 16": ({"batch_size": 16}, True),
    "make that rnak 23... 32 sory": ({"lora_rank": 32}, True),
    "rank 16, I mean 32": ({"lora_rank": 32}, True),
    "Rang 16, ich meine 32": ({"lora_rank": 32}, True),
    "rank 16, sorry, epochs 2": ({"lora_rank": 16, "epochs": 2}, True),
    "rank 8 and the rest stays": ({"lora_rank": 8}, True),
    "stell den Rang doch wieder auf 8": ({"lora_rank": 8}, True),
    "the rank is fine, set to 2 the epochs": ({"epochs": 2}, False),
    "200 lignes suffiront, et le reste ne change pas": ({"rows": 200}, True),
    "2 Epochen reichen, der Rest bleibt so": ({"epochs": 2}, True),
    "2 epoki, reszta bez zmian": ({"epochs": 2}, True),
    "3 epochs smells like overfitting, make it two": ({"epochs": 2}, True),
    "4 epochs smells like overfitting": ({"epochs": 4}, False),
    "rank 8 is not enough": ({"lora_rank": 8}, False),
    "could we do two rounds instead of three? I'm a bit short of cash": ({"epochs": 2}, True),
    "zweieinhalb Millionen Epochen": ({"epochs": 2.5e6}, True),
    "na milion epok": ({"epochs": 1e6}, True),
    "half an epoch": ({"epochs": 0.5}, True),
    "with r1's rows, 2 epochs": ({"epochs": 2}, False),
    "rank 16, set it up and stop after 2 epochs": ({"lora_rank": 16, "epochs": 2}, False),
    "rank 16 epochs 2": ({"lora_rank": 16, "epochs": 2}, True),
    "quantize to 0.3 bits": ({"scheme": "0.3 bits"}, True),
    "half a bit": ({"scheme": "0.5 bits"}, True),
    "8 bits, not 4 bits": ({"scheme": "W8A8"}, True),
    "0 epochs": ({"epochs": "zero"}, True),
    "rank 16, because rank 8 was too slow": ({"lora_rank": 16}, True),
    "rank 16, tomorrow": ({"lora_rank": 16}, False),
    "rank 16 for my emails": ({"lora_rank": 16}, False),
    "cut epochs to 1": ({"epochs": 1}, True),
    "make it rank 32 and cut epochs to 1": ({"lora_rank": 32, "epochs": 1}, True),
    "don't cut the epochs to 1": ({}, False),
    "don't raise the rank to 16": ({}, False),
    "don't raise the rank from 8 to 16": ({}, False),
    "don't raise the rank to 16, 8 is fine": ({}, False),
    "bitte nicht den Rang auf 16 setzen": ({}, False),
    "no subas el rango a 16": ({}, False),
    "ne mets pas le rang à 16": ({}, False),
    "nie ustawiaj rank na 16": ({}, False),
    "don't set lora_rank=16": ({}, False),
    "don't go down to 4 bits": ({}, False),
    "don't forget to set rank 16": ({"lora_rank": 16}, True),
    "why don't we use rank 16": ({"lora_rank": 16}, True),
    "oui, mais avec un rang de 4": ({"lora_rank": 4}, True),
    "not more than 2 epochs": ({"epochs": 2}, True),
    "laisse le rang à 4": ({"lora_rank": 4}, True),
    "rank 4, deja el deploy": ({"lora_rank": 4}, False),
    "nos pones rank 4": ({"lora_rank": 4}, True),
    "drop the rank to 4": ({"lora_rank": 4}, True),
    "not enough rows, 500 rows": ({"rows": 500}, False),
}  # fmt: skip
"""What is said of the plan → the values that are set, and whether nothing is left to ask about."""
_OF_THE_PLAN = ("oui", "enough", "rounds", "down", "why", "bits", "set", "make", "change", "was", "slow", "like")


@table("said", CHANGES)
def test_a_value_is_the_one_that_is_meant_and_what_is_denied_is_not_set(said: str) -> None:
    edits = edits_of(slots_of(said), PLANNED, lambda word: word in _OF_THE_PLAN, leaves_out=False)
    found = settled_in(NOW, edits)
    assert ({one.field: one.value for one in found.values}, not found.unread) == CHANGES[said], found


def test_the_rows_of_a_run_that_are_taken_again_are_no_change_of_a_value() -> None:
    planned = Context(planned=PLANNED)
    for said in ("no new rows, reuse those of r1", "400 synthetic rows is overkill, just reuse r1's"):
        assert read(said, planned).label == "plan.rows", said
    assert read("no new rows, 2 epochs", planned).label != "plan.rows"


def test_what_is_denied_is_no_multiple_either() -> None:
    assert not edits_of(slots_of("don't double the rank"), PLANNED, unknown, leaves_out=False).factors
    assert edits_of(slots_of("double the rank"), PLANNED, unknown, leaves_out=False).factors == {"lora_rank": 2.0}


MULTIPLES = {
    ("double the rank", "the rank twice as big", "den Rang doppelt so hoch", "deux fois plus de rang",
     "4 epochs, 2x rank"): 2.0,
    ("twice as low a rank", "the rank two times smaller", "rang deux fois plus petit", "cut the rank in half",
     "el rango a la mitad", "the rank half as large and epochs twice as many", "2 mal weniger rank"): 0.5,
    ("the rank four times smaller", "ranga 4 razy mniejsza"): 0.25,
    # Of another setting, beside a value, over a mark, or of what is no setting.
    ("rank 8, twice as many epochs", "twice as large, and keep the rank", "rank 8 twice",
     "keep the rank, half the rows", "the rank may be half of what a colleague uses"): None,
}  # fmt: skip


@table(("said", "by"), [(said, by) for several, by in MULTIPLES.items() for said in several])
def test_a_multiple_is_of_the_setting_next_to_it_and_goes_the_way_that_is_said(said: str, by: float | None) -> None:
    multiples = factors(slots_of(said))
    assert multiples.get("lora_rank", (None,))[0] == by and "lora_rank" not in {
        one.field for one in assigned(slots_of(said)) if by
    }


def test_once_more_is_no_multiple_and_nothing_unread() -> None:
    for said in (
        "entraîne encore une fois",
        "noch ein mal trainieren",
        "treina mais uma vez",
        "allena ancora una volta",
    ):
        order = order_of("train", slots_of(said), reader().known("do.train"))
        assert not (order.factors or order.unread), said


def test_a_multiple_of_what_is_counted_is_a_whole_number() -> None:
    edits = edits_of(slots_of("three times fewer rows"), PLANNED, unknown, leaves_out=False)
    assert [one.value for one in settled_in({"rows": 400}, edits).values] == [133]


MORE_OR_LESS = {
    ("one epoch less", "1 epoch less", "eine Epoche weniger", "una época menos", "une époque de moins",
     "un'epoca in meno", "uma época a menos", "een epoch minder", "jedna epoka mniej", "one fewer epoch",
     "less by 1 epoch", "lower the epochs by one", "epochs 1 less", "verringere die Epochen um 1",
     "reduza as épocas em 1", "1 epoch less and rank 16"): 2.0,
    ("2 epochs more", "two more epochs", "zwei Epochen mehr", "dos épocas más", "deux époques de plus",
     "due epoche in più", "duas épocas a mais", "twee epochs meer", "dwie epoki więcej",
     "raise the epochs by 2", "add 2 epochs", "add 50 rows and 2 epochs", "epochs 2 more",
     "augmente les epochs de 2"): 5.0,
    # The value itself: a limit, an estimate, or more of something else.
    ("2 epochs, more is overkill", "2 epochs or fewer", "2 epochs more or less", "2 Epochen mehr oder weniger",
     "more epochs, 2", "no more than 2 epochs", "epochs 2 more rows",
     "cut epochs to 2", "baja las epochs de 3 a 2", "rank 4 less and 2 epochs"): 2.0,
    # Nothing is guessed: of another value than the one that stands, nothing left of it, or of what is not known.
    ("2 epochs less than before", "3 epochs less", "30% fewer epochs", "2 epochs less forgetting",
     "epochs 1 less than in r1", "epochs 1 more or less", "add 2 epochs to r1", "add 2 people to the epochs",
     "raise the epochs by 50%"): None,
}  # fmt: skip


@table(("said", "epochs"), [(said, epochs) for several, epochs in MORE_OR_LESS.items() for said in several])
def test_by_how_much_a_setting_is_to_change_counts_from_the_value_that_stands(said: str, epochs: float | None) -> None:
    found = {one.field: one.value for one in assigned(resolved(slots_of(said), NOW), ("train",))}
    assert found.get("epochs") == epochs
    without = {one.field: one.value for one in assigned(resolved(slots_of(said), {}), ("train",))}
    assert without.get("epochs") == (epochs if epochs == 2.0 and said in [*MORE_OR_LESS][2] else None)


@table(
    ("said", "left_out", "beside"),
    [
        ("drop the deploy, I'll serve it with docker myself", ("deploy",), True),
        ("no deployment please, my server already runs vLLM", ("deploy",), True),
        ("skip the merge, we'll merge it by hand", ("merge",), True),
        ("without quantizing because my card is large", ("quantize",), True),
        ("drop the merge, I want rank 8", ("merge",), False),
        ("mets 2 époques et enlève le déploiement", ("deploy",), False),
        ("metti 2 epoche e togli il deploy", ("deploy",), False),
        ("daj 2 epoki i bez wdrożenia", ("deploy",), False),
        ("no merge, ich will quantisieren", ("merge",), False),
    ],
)
def test_who_tells_what_he_does_himself_orders_nothing_of_it(
    said: str, left_out: tuple[str, ...], beside: bool
) -> None:
    edits = edits_of(slots_of(said), PLANNED, unknown, leaves_out=False)
    assert (edits.without, bool(edits.beside)) == (left_out, beside) and not (beside and edits.unread), edits


NUMBERS: Mapping[str, list[float]] = {
    "dreiundzwanzig Epochen": [23], "zweihundert Zeilen": [200], "treinta y dos": [32], "veinticinco": [25],
    "ventitre epoche": [23], "duemila righe": [2000], "trinta e dois": [32], "tweeëndertig": [32],
    "driehonderd rijen": [300], "trois cents lignes": [300], "dwadzieścia": [20], "anderthalb Epochen": [1.5],
    "eine halbe Million": [1, 5e5], "un millón de filas": [1e6], "two million": [2e6], "fortune": [],
    "encore une fois": [1], "deux fois": [2], "twee en een half": [2.5], "two and three": [2, 3],
    "millions of rows": [],
}  # fmt: skip


@table("said", NUMBERS)
def test_number_words_of_other_languages_are_read(said: str) -> None:
    assert [number.value for number in numbers_in(said)] == NUMBERS[said]


_MUST_STAY = """
awq mmlu gsm8k tomorrow later tonight weekend emails mails correos kunden clientes factures demain domani mañana
amanhã morgen jutro better best mejor meglio beter lepiej faster cheaper only never until unless max maximum minimum
half dora unsloth safetensors frankfurt gpu cpu slack jira two drei sin sans ohne nie niet awq2 exl2 hqq
"""


def test_what_limits_denies_counts_or_names_is_no_word_that_says_nothing() -> None:
    said = {*lexicon()["says_nothing"].single_words(), *lexicon()["shows"].single_words()}
    assert not said & {*_MUST_STAY.split()}
    tables = ("denies", "negation", "conditions", "until", "only", "unspoken", "instead", "times", "holds_back")
    both = {name: said & {*lexicon()[name].single_words()} for name in tables}
    assert not any(both.values()), both


_CLOSED = {
    "en": "the a of to in on for with from by via and or but it this that we you can could will would should",
    "de": "der die das ein eine den dem des und oder aber mit von für zu im am ist sind wird kann soll bitte dieselben",
    "es": "el la los las un una y o pero de del al en con por para es son está puede quiero esto ese mismo",
    "fr": "le la les un une des et ou mais de du au aux dans sur pour avec est sont peut veux ce cette même",
    "it": "il lo la i gli le un una e o ma di del al da dal in con su per è sono può voglio questo stesso",
    "pt": "o a os as um uma e ou de do da em no na com por para é são pode quero isto esse mesmo",
    "nl": "de het een en of maar van op in met voor naar is zijn kan wil dit dat deze dezelfde",
    "pl": "i a lub ale w na z do od dla po przy jest są może chcę ten ta to tego sam",
}  # fmt: skip


@table(("language", "word"), [one for name, words in _CLOSED.items() for one in product([name], words.split())])
def test_the_little_words_of_eight_languages_are_never_asked_about(language: str, word: str) -> None:
    slots = slots_of(f"{word} r1")
    places = [(slot.start, slot.end) for slot in slots.named if slot.kind in ("run", "only", "not", "pronoun")]
    assert not unread_words(slots, places, unknown), language


@table(
    ("said", "denied"),
    [
        ("why not train again with rank 8", False),
        ("don't forget to train again with rank 8", False),
        ("don't you train again with rank 8", False),
        ("don't train again with rank 8", True),
        ("do not train", True),
        ("warum nicht noch mal trainieren", False),
        ("nicht trainieren", True),
    ],
)
def test_why_not_and_do_not_forget_deny_no_step(said: str, denied: bool) -> None:
    assert order_of("train", slots_of(said), unknown).denied is denied
