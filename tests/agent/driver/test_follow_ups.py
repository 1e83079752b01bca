"""Short words behind an answer: in several languages, on strangers' homes, no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import fields, replace
from pathlib import Path

import pytest

from tests.bench.strangers import Shell, plan_of, shell_in
from tests.driver.stranger_states import home_of_state
from tests.fixtures.tables import table
from tunesmith.agent.driver.follow_ups import follow_up
from tunesmith.agent.driver.look_ups import turn_context
from tunesmith.agent.queries.machine import ServedQuery
from tunesmith.agent.words.reading import Context, read

pytestmark = pytest.mark.heavy

TWO = "at least two finished runs r1 and r2 with different settings, both tested"
ONE = "one finished run r1 (base, adapter, merged and quantized tested), nothing running, nothing served"
PARTLY = "r2 is tested and only partly learned or did not learn"
SERVED = "at least two finished runs; a model of one of them is served now, and another was served before it"
MERGED = "r1 is trained and merged, not yet quantized"
FAILS = "r1 is finished and its tuned model fails more than five open cases"
FILE = "a file /tmp/exam/tickets.jsonl with a few valid rows exists"
PLAN = "a plan is open: rank 16, 3 epochs"
EMPTY = "no run yet, an empty home"
DECLINED = "some steps were approved and at least one was declined"
AHEAD = "a run is planned or begun with its expensive steps still ahead"
FAILED = "several runs or steps, at least one of which failed"


@contextmanager
def at(home: Path, state: str) -> Iterator[Shell]:
    """A shell where somebody stands; every price is declined and no worker starts."""
    launched: list[tuple[str, dict[str, object]]] = []
    with home_of_state(home, state), shell_in(home, launched, None) as shell:
        if plan := plan_of(state):
            shell.talk.chat().deps.draft = plan
        yield shell
        assert launched == []


def types(shell: Shell, line: str) -> str:
    """What the screen shows behind a line."""
    before = len(shell.screen.getvalue())
    shell.type(line)
    return shell.screen.getvalue()[before:].partition("\n❯ ")[2].partition("\n")[2]


def behind(home: Path, state: str, before: str, says: Sequence[str]) -> dict[str, str]:
    """What each of some sentences shows behind the same question, which is asked once: what is remembered of it is put
    back before each."""
    shown = {}
    with at(home, state) as shell:
        types(shell, before)
        deps = shell.talk.chat().deps
        remembered = {one.name: getattr(deps, one.name) for one in fields(deps)}
        for say in says:
            for name, value in remembered.items():
                setattr(deps, name, copy(value) if isinstance(value, list | dict) else value)
            shown[say] = types(shell, say)
    return shown


@table(
    ("state", "before", "says", "shows"),
    [
        (TWO, "compare r1 and r2", ("which one?", "so which one would u take", "lequel tu prendrais ?",
                                    "quale prenderesti?", "welke zou jij kiezen?"), "The tests do not choose"),
        (PARTLY, "how many of its test cases does r2 pass?",
         ("is that good?", "und reicht das?", "how many more would it need", "¿cuántos le faltan?", "è buono?",
          "c'est bien ?", "czy to dobrze?"), "learned takes 48 of 60 (80% of them), so 28 cases more would be needed"),
        (PARTLY, "how many of its test cases does r2 pass?", ("Und woran liegt's?", "Und warum nicht ganz?", "why?"),
         "learned takes 48 of 60"),
        (PARTLY, "Hat r2 gelernt, was es sollte?", ("Und warum nicht ganz?", "Und woran liegt's?"),
         "learned takes 48 of 60"),
        (SERVED, "Which model is being served now?",
         ("No, the one before that.", "Thank you. And which one was it before that?", "und davor?", "e prima?",
          "a wcześniej?", "en daarvoor?"), "Before it the quantized model a10 of r1 was served"),
        (MERGED, "Was würde es kosten, r1 auf 4 Bit zu quantisieren?", ("Und mit 8?", "et avec 8 ?", "e com 8?"),
         "quantize with scheme=W8A8"),
        (MERGED, "was würde es kosten, r1 zu quantisieren?",
         ("Und wie viel Platz braucht das auf der Platte?", "¿y cuánto espacio?", "combien de place ?"),
         "of disk here. Nothing is begun"),
        (MERGED, "was würde es kosten, r1 zu quantisieren?", ("und wie lange?", "and how long?"),
         "quantize takes about"),
        (MERGED, "was würde es kosten, r1 zu quantisieren?", ("ja gut, mach", "vale, hazlo", "va bene, fallo"),
         "?? quantize: about"),
        (TWO, "what would it cost to train r1 again with rank 8?", ("and with 16?", "y con 16?"), "lora_rank=16"),
        (TWO, "what would it cost to train r1 again with rank 8?", ("and with 3 epochs?",), "lora_rank=8 epochs=3"),
        (ONE, "¿Con qué rank y cuántas épocas se entrenó r1?",
         ("¿y cuánto tardó?", "und wie lange?", "et combien de temps ?", "en hoe lang duurde het?"), "train took"),
        (ONE, "what does lora rank mean?", ("would 8 do for me?", "reicht 8?"), "8 is 0.5 times what the rule"),
        (ONE, "How many cases does the quantized model of r1 pass?",
         ("and before it was shrunk?", "und vor dem Quantisieren?", "and before?", "y antes?"),
         "merged passes 59 of 60"),
        (PLAN, "which rank did r1 have?", ("Und wie ist es diesmal?", "and this time?", "y esta vez?"),
         "train lora_rank is 16"),
        (FILE, "import /tmp/exam/tickets.jsonl",
         ("any bad ones in there?", "E são todas válidas?", "alle gültig?", "¿hay alguna mala?", "sono tutte valide?"),
         "of 3 records, all can be taken as rows. It was imported"),
        (FILE, "quantas linhas tem /tmp/exam/tickets.jsonl", ("E são todas válidas?", "are they all fine?"),
         "all can be taken as rows. Nothing was imported"),
        (EMPTY, "Can I train Llama-3.3-70B on this computer?",
         ("Then a smaller one, whatever that is.", "dann eben ein kleineres", "uno más pequeño?"), "up to"),
        (AHEAD, "Quali passi mancano ancora?", ("E quello più lungo?", "y el más largo?", "which one takes longest?"),
         "takes longest: train"),
        (DECLINED, "welke stap heb ik geweigerd?", ("waar was die ook alweer voor", "wofür war der nochmal?"),
         "Generate has a model write training rows"),
        (FAILED, "Mostrami l'ultimo run e il suo stato.", ("e quello prima?", "und der davor?"), "r1 (ticket-triage)"),
    ],
)  # fmt: skip
def test_short_words_are_asked_of_what_the_answer_was_about(
    tmp_path: Path, state: str, before: str, says: Sequence[str], shows: str
) -> None:
    shown = behind(tmp_path / f"{abs(hash((state, before, shows)))}", state, before, says)
    assert {say: shows in text for say, text in shown.items()} == dict.fromkeys(says, True), shown


def test_the_last_one_of_a_list_that_goes_on_is_the_last_on_the_screen(tmp_path: Path) -> None:
    shown = behind(tmp_path, FAILS, "which cases fail?", ("show me the last one in full", "zeig mir den letzten ganz"))
    assert all("4 of 23: r1" in text for text in shown.values()), shown


@table(
    ("state", "before", "says"),
    [
        (TWO, "compare r1 and r2", ("what should i try next", "how long did r1 take")),
        (PARTLY, "how many of its test cases does r2 pass?", ("was fehlt noch?", "how are you", "is rank 8 good?")),
        (SERVED, "Which model is being served now?", ("since when?", "how do i call it?", "is r1 good?")),
        (MERGED, "was würde es kosten, r1 zu quantisieren?", ("no", "how much disk is left?", "nein, besser nicht")),
        (FILE, "import /tmp/exam/tickets.jsonl", ("which cases does r1 fail?", "how many test cases failed in r1?")),
        (FAILS, "Show me three cases that r1's model got wrong.", ("show all", "generate three more rows", "why?")),
        (TWO, "compare r1 and r2", ("and the weather?", "thanks", "what is lora?")),
        (FAILS, "which cases fail?", ("delete the first one", "train the second again", "which runs failed?")),
        (AHEAD, "Quali passi mancano ancora?", ("which run took longest?", "which training rows are the longest?")),
        (EMPTY, "Can I train Llama-3.3-70B on this computer?", ("and on a 4090?", "what can you do?")),
        (ONE, "¿Con qué rank y cuántas épocas se entrenó r1?", ("how long did the merge take?", "compare base and r1")),
    ],
)  # fmt: skip
def test_words_of_their_own_are_not_taken_for_short_ones(
    tmp_path: Path, state: str, before: str, says: Sequence[str]
) -> None:
    with at(tmp_path / f"{abs(hash((state, before)))}", state) as shell:
        types(shell, before)
        deps = shell.talk.chat().deps
        asked = deps.last_query
        for say in says:
            deps.prompt = say
            assert follow_up(deps, read(say, turn_context(deps))) is None, say
        assert deps.last_query == asked


ROWS = "r1 has rows; a plan for a new run is open: generate 400 rows, train with rank 16, 3 epochs, quantize"
HAD = "r1 was trained with rank 8 and 2 epochs; a plan for a new run is open: rank 16, 3 epochs, quantize"
RELEASED = "r1 was released as GGUF in an earlier step"
RUNNING = "a training step is running now, partly done"
SEVERAL = "several runs or steps, at least one of which failed"
UNTESTED = "r1 is trained and merged, nothing tested after the merge"


@table(
    ("state", "before", "says", "shows"),
    [
        (FAILED, "which steps went wrong?", ("and when was that?", "wann war das?"), "train (s18 of r2) began"),
        (FAILED, "which steps went wrong?", ("how long did the second one take?",), "s6 of r1"),
        (FAILS, "which cases fail?", ("show me the third in full", "die dritte bitte ganz"), "3 of 23: r1, case"),
        (AHEAD, "what comes next in r1?", ("and what does that one cost?",), "for preflight here"),
        (AHEAD, "was it tested?", ("¿cuánto cuesta todo?", "what will all of it cost?"), "About 7 min"),
        (ONE, "did quantizing make anything worse?", ("in which block?", "how much worse?"), "in target (by 2)"),
        (ONE, "how many general cases pass?", ("which of them flipped?", "welche wurden verloren?"),
         "base passes 32 of 33"),
        (ONE, "did quantizing make anything worse?", ("which flipped?",), "flipped from merged to quantized"),
        (ONE, "how many target cases does the base pass?", ("is that terrible?",), "as it is before any training"),
        (PARTLY, "how did r2 do?", ("and what should i do now?", "und was mache ich jetzt?"), "To try next"),
        (MERGED, "how large is the merged model?", ("und nach dem Quantisieren?",), "by arithmetic"),
        (ONE, "how much RAM is free?", ("and the disk?", "en de schijf?"), "Disk: "),
        (TWO, "compare r1 and r2", ("which of them forgot more?",), "its base passes"),
        (TWO, "how many runs are there?", ("the second one",), "r1 (ticket-triage)"),
        (ONE, "how long did training take?", ("tokens per second?",), "tokens a second"),
        (ONE, "what is the learning rate?", ("is that high?",), "times what the rule"),
        (EMPTY, "which runs are there?", ("why not?", "pourquoi pas ?"), "Nothing was begun in"),
        (RELEASED, "was r1 exported?", ("what size", "und wie gross"), "The release of r1 (a13) is 145 MiB"),
        (UNTESTED, "has r1 been merged?", ("ok go ahead with that",), "?? evaluate: about"),
        (UNTESTED, "is r1 done?", ("I mean after merging it", "no, tras fusionar"), "merged model of r1 was not"),
        (TWO, "compare r1 and r2", ("why is that?", "warum das denn?"), "is a guess until one thing alone is changed"),
        (SERVED, "which model was served before?", ("why though?", "warum denn?"), "No reason for changing"),
        (ONE, "how much memory did the training need?", ("why so much?", "warum so viel?"), "Why is not recorded"),
        (ONE, "how large is the adapter?", ("why?",), "no reason for what “how large is the adapter?”"),
        (ONE, "how many target cases does the quantized model pass?", ("and without training?", "y sin entrenar?"),
         "base passes 2 of 60"),
        (ONE, "how many target cases does the quantized model pass?", ("a scalony?",), "merged passes 59 of 60"),
        (ONE, "quanto è durato l'addestramento?", ("e tutto insieme?",), "of work in all"),
        (MERGED, "how much disk does r1 use?", ("throw out the largest one", "lösch den größten davon"),
         "I take that to be the base a1 of r1"),
        (DECLINED, "what did I refuse?", ("bring that back again",), "?? generate: about"),
        (DECLINED, "what did I approve?", ("und der Rest?", "y el resto?"), "generate (s3 of r1) refused"),
        (SEVERAL, "which steps failed?", ("why the last one?", "warum der letzte?"), "Why: needs 27.4 GiB"),
        (FAILS, "which cases fail?", ("one more", "noch einer"), "Numbers 5 to 5 of 23"),
        (FAILS, "which cases fail?", ("what would have been correct?", "was wäre richtig gewesen?"), "wanted: "),
        (TWO, "show me the loss curve of r2", ("is that good?", "ist das gut?"), "r2: Not over-trained"),
        (TWO, "how much disk do my runs take?", ("and how much is left?", "et il en reste combien ?"), "Disk: "),
        (TWO, "what settings was r1 trained with?", ("train again with those", "trainier nochmal damit"), "name r1 to"),
        (AHEAD, "what would the training cost?", ("hoe zeker is dat?", "wie sicher ist das?"), "By usual rates"),
        (ONE, "how long did the merge take?", ("is that good?", "ist das gut?"), "merge was estimated at"),
        (ONE, "how much memory did the training need?", ("how much is free?",), "RAM: "),
        (TWO, "how much disk do my runs take?", ("welcher ist am größten?",), "The largest is base"),
        (TWO, "what settings was r1 trained with?", ("a drugi?", "e o outro?", "e l'altro?"), "train of r2"),
        (AHEAD, "which steps are left?", ("welcher braucht die meiste Zeit?",), "takes longest: train"),
        (RELEASED, "where is the gguf of r1?", ("wat kan ik ermee?", "what can I do with it?"), "ollama run NAME"),
        (RELEASED, "when was the gguf made?", ("how big is it?", "wie groß?"), "The release of r1 (a13) is 145 MiB"),
        (RUNNING, "how long does the training still take?", ("and then?", "und danach?"), "what could follow"),
        (SERVED, "what is served right now?", ("jak to wyłączyć?", "how to take it down?"), "`/serve stop`"),
    ],
)  # fmt: skip
def test_what_words_leave_unnamed_is_what_was_told_last(
    tmp_path: Path, state: str, before: str, says: Sequence[str], shows: str
) -> None:
    shown = behind(tmp_path / f"{abs(hash((state, before, shows)))}", state, before, says)
    assert {say: shows in text for say, text in shown.items()} == dict.fromkeys(says, True), shown


@table(
    ("state", "before", "says"),
    [
        (DECLINED, "what did I refuse?", ("don't put that back", "put that one back with 10 rows", "delete that one")),
        (DECLINED, "what did I approve?", ("bring that back again",)),
        (MERGED, "how much disk does r1 use?", ("remove the old runs", "quantize the largest one with 3 bits")),
        (TWO, "compare r1 and r2", ("is it done with the better one?", "the first one then")),
    ],
)  # fmt: skip
def test_what_points_back_and_is_no_clear_order_begins_and_prices_nothing(
    tmp_path: Path, state: str, before: str, says: Sequence[str]
) -> None:
    with at(tmp_path / f"{abs(hash((state, before)))}", state) as shell:
        for say in says:
            types(shell, before)
            types(shell, say)
        assert shell.answers.asked == []


@table(
    ("said", "say"),
    [("what is served right now?", "how would I take it down?"), ("wat wordt er geserveerd?", "hoe krijg ik dat weg?")],
)
def test_what_was_said_before_weighs_few_words_and_makes_none_of_them_certain(said: str, say: str) -> None:
    alone = Context(before=ServedQuery(), moment="served")
    first, behind = (read(say, replace(alone, said=one)) for one in ("", said))
    assert not first.sure and not behind.sure and behind.likely != first.likely
    for order in (
        "train it again",
        "quantize it with 4 bits",
        "yes",
        "show me all the cases that the adapter model got wrong",
    ):
        assert read(order, replace(alone, said=said)) == read(order, alone), order


def test_next_one_is_the_next_in_full_where_one_was_shown_so(tmp_path: Path) -> None:
    with at(tmp_path / "home", FAILS) as shell:
        types(shell, "which cases fail?")
        assert "2 of 23: r1, case" in types(shell, "show the second in full")
        assert "3 of 23: r1, case" in types(shell, "the next one")
        wanted = types(shell, "what would have been right?").splitlines()
        assert "wanted: " in wanted[1] and "3 of 23" not in wanted[0]
        assert "4 of 23" not in types(shell, "which cases fail in the general block?")


@table(
    ("state", "before", "say", "shows", "fields"),
    [
        (PLAN, "which rank does the plan have?", "make it 32", "lora_rank 32", {"lora_rank": 32, "epochs": 3.0}),
        (PLAN, "how many epochs will it be?", "double that", "epochs 6", {"lora_rank": 16, "epochs": 6.0}),
        (HAD, "which rank and epochs did r1 have?", "take those instead", "lora_rank 8", {"lora_rank": 8}),
        (HAD, "which rank did r1 have?", "and in the new one?", "lora_rank is 16", {"lora_rank": 16}),
        (ROWS, "how many rows does r1 have?", "then take those", "rows that r1 kept", {"lora_rank": 16}),
    ],
)  # fmt: skip
def test_with_a_plan_open_words_that_point_back_change_it_and_start_nothing(
    tmp_path: Path, state: str, before: str, say: str, shows: str, fields: Mapping[str, object]
) -> None:
    with at(tmp_path / f"{abs(hash((state, before, say)))}", state) as shell:
        types(shell, before)
        shown = types(shell, say)
        draft = shell.talk.chat().deps.draft
        assert shows in shown and draft is not None and shell.answers.asked == [], (say, shown)
        train = next(dict(spec.fields) for spec in draft.steps if spec.stage == "train")
        assert {name: train[name] for name in fields} == fields, (say, train)


def test_a_plan_is_started_by_who_says_so_whatever_was_asked_before(tmp_path: Path) -> None:
    for number, say in enumerate(("start it", "ja, leg los", "go")):
        with at(tmp_path / str(number), HAD) as shell:
            types(shell, "which rank did r1 have?")
            types(shell, say)
            assert shell.talk.chat().deps.draft is None, say


def test_what_follows_and_is_not_understood_is_offered_what_can_be_asked_of_the_same(tmp_path: Path) -> None:
    with at(tmp_path / "home", TWO) as shell:
        types(shell, "which run is best?")
        shown = types(shell, "and the one in blue?")
        assert "about the last answer" in shown and "which runs failed" in shown and "did not understand" not in shown


def test_the_last_step_of_the_plan_is_one_by_its_place(tmp_path: Path) -> None:
    with at(tmp_path / "home", PLAN) as shell:
        assert "without deploy" in types(shell, "leave the last one out")


def test_a_list_goes_on_where_it_stopped_and_never_begins_anew(tmp_path: Path) -> None:
    with at(tmp_path / "home", FAILS) as shell:
        first = types(shell, "Show me three cases that r1's model got wrong.")
        pages = [
            types(shell, say) for say in ("three more please", "noch drei", "otros tres, diferentes", "the next five")
        ]
        assert [page.count("answered:") for page in pages[:3]] == [3, 3, 3]
        cases = [{line.split(":")[0].strip() for line in page.splitlines() if line.startswith("  ") and ": “" in line}
                 for page in (first, *pages)]  # fmt: skip
        shown = [case for page in cases for case in page if "-" in case]
        assert len(shown) == len(set(shown)) and "Numbers 4 to 6 of" in pages[0] and "Numbers 10 to 12 of" in pages[2]
        for _ in range(3):
            types(shell, "ten more")
        assert "that may be seen were shown" in types(shell, "three more please")
        types(shell, "Show me three cases that r1's model got wrong.")
        assert "Numbers 4 to 6 of" in types(shell, "more") and "Numbers 7 to 9 of" in types(shell, "mehr")
        assert "target-" in types(shell, "show all")


def test_a_list_of_rows_goes_on_too(tmp_path: Path) -> None:
    with at(tmp_path / "home", ONE) as shell:
        first, second = types(shell, "show me three training rows"), types(shell, "three more")
        assert "g000" in first and "3 more of them" in second and "g000" not in second and second.count("→") == 3


@table(
    ("state", "wish"),
    [
        (EMPTY, "I don't want it to swear"), (EMPTY, "the model must never mention prices"),
        (EMPTY, "our support tickets as json, with the fields team, product and mood"),
        (SERVED, "customers complain in long mails; the model should sum them up"),
        (SERVED, "I want it to answer complaints politely"),
    ],
)  # fmt: skip
def test_a_wish_is_one_also_where_it_complains_or_denies(tmp_path: Path, state: str, wish: str) -> None:
    with at(tmp_path / f"{abs(hash(wish))}", state) as shell:
        assert "That is a new behaviour" in types(shell, wish)


def test_a_wish_that_ends_with_always_is_not_asked_when(tmp_path: Path) -> None:
    for number, said in enumerate(("want qwen3 4b to talk like a pirate. always", "es soll reimen, immer")):
        with at(tmp_path / str(number), EMPTY) as shell:
            shown = types(shell, said)
            assert "when: " in shown and "2 of 4" in shown
    with at(tmp_path / "as-answer", EMPTY) as shell:
        types(shell, "it should talk like a pirate")
        assert "when: siempre ✓" in types(shell, "siempre")
    with at(tmp_path / "within", EMPTY) as shell:
        assert "1 of 4" in types(shell, "it should always answer in rhymes")


def test_a_base_by_its_spoken_name_is_named_whole_and_whether_it_fits(tmp_path: Path) -> None:
    with at(tmp_path / "home", EMPTY) as shell:
        shown = types(shell, "teach qwen3 4b to answer my mails")
        assert "Its base will be Qwen/Qwen3-4B, as you said." in shown and "Qwen3-4B" in shown.split("as you said.")[1]
    with at(tmp_path / "nearest", EMPTY) as shell:
        shown = types(shell, "teach llama 3 8b to answer my mails")
        assert "Llama-3.1-8B-Instruct, which I take “llama 3 8b” for; OWNER/NAME names another." in shown
    with at(tmp_path / "unknown", EMPTY) as shell:
        assert "I know no model “deepseek 7b”" in types(shell, "teach deepseek 7b to answer my mails")
