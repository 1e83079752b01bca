"""Several things said at once: each is done by the rules of a sentence of its own, and none vanishes without a word."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.agent.driver.test_said import Alone
from tests.bench.strangers import Shell, shell_in
from tests.driver.stranger_states import home_of_state
from tests.fixtures.stored_runs import finished_run
from tests.fixtures.tables import table
from tunesmith.agent.driver import parts
from tunesmith.memory.records import DONE, FAILED

ONE = "r1 is trained and merged, not yet quantized"
TWO = "at least two finished runs r1 and r2 with different settings, both tested"
LESS = "r2 is tested and only partly learned or did not learn"
RUNNING = "a training step is running now, partly done"


@pytest.fixture(autouse=True)
def a_server_to_price(monkeypatch: pytest.MonkeyPatch) -> None:
    """What serves is priced wherever the tests run; nothing is started."""
    monkeypatch.setenv("TUNESMITH_VLLM", sys.executable)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    finished_run(tmp_path / "home")[0].close()
    one = Alone(tmp_path / "home")
    yield one
    one.chat.close()


def parted(one: Alone, said: str) -> tuple[list[str], tuple[str, ...]]:
    one.deps.begin_turn(said)
    return parts.steps_of(one.deps), one.deps.later


@pytest.mark.heavy
@table(
    ("said", "now", "later"),
    [
        ("wie gut ist r1? exportier es als gguf", ["wie gut ist r1?", "exportier es als gguf"], ()),
        ("quanti casi passa r1: poi esporta il gguf", ["quanti casi passa r1", "esporta il gguf"], ()),
        ("serve the merged one, how big is it", ["how big is it", "serve the merged one"], ()),
        ("evalúa el modelo fusionado y luego cuantízalo a 4 bits", ["evalúa el modelo fusionado"],
         ("cuantízalo a 4 bits",)),
        ("quantize and deploy", ["quantize"], ("deploy (quantized)",)),
        ("quantize it to 8 bits y luego evalúalo", ["quantize it to 8 bits"], ("evalúalo (quantized)",)),
        ("quantize r1 and compare it with the base", ["quantize r1"], ("compare it with the base",)),
        ("quantize it to 4 bits and release it", ["quantize it to 4 bits"], ("release it",)),
        ("train again with rank 8 and then evaluate the adapter and deploy it", ["train again with rank 8"],
         ("evaluate the adapter", "deploy it (adapter)")),
        ("quantize it to 8 bits and then tell me how many cases that lost", ["quantize it to 8 bits"],
         ("tell me how many cases that lost",)),
        ("valuta il modello unito e, se va bene, quantizzalo", ["valuta il modello unito"], ("quantizzalo",)),
        ("test the merged one and if that looks fine serve it", ["test the merged one"], ("serve it (merged)",)),
        ("show me what failed, then deploy the quantized one and export a gguf",
         ["show me what failed", "deploy the quantized one"], ("export a gguf",)),
        ("enséñame los fallos y haz más filas sobre eso", ["enséñame los fallos", "haz más filas sobre eso"], ()),
        ("hoe goed is r1, serveer daarna het samengevoegde model",
         ["hoe goed is r1", "serveer daarna het samengevoegde model"], ()),
        ("hoe goed is r1 en serveer vervolgens het samengevoegde model",
         ["hoe goed is r1 en", "serveer vervolgens het samengevoegde model"], ()),
    ],
)  # fmt: skip
def test_a_sentence_is_parted_into_what_each_part_says_by_itself(
    alone: Alone, said: str, now: list[str], later: tuple[str, ...]
) -> None:
    assert parted(alone, said) == (now, later)


@pytest.mark.heavy
@table(
    "said",
    [
        "¿cuál es mejor, r1 o r3?", "which answers quicker, merged or quantized", "r1 against r2, what's the score",
        "validation loss, all runs", "rank or alpha, how do they differ", "get me a base and measure it at 4 bits",
        "deploy it and if it fails tell me", "don't quantize and deploy the merged one",
        "deploy the merged one, not the quantized", "quantize it but only if the tests pass",
        "import rows.jsonl and train only if there are 500", "roll back and tell me if not everything passes",
        "r1 against r2, what's the score then", "two runs r1 and r2, which needed the most memory",
    ],
)  # fmt: skip
def test_a_question_in_two_halves_and_a_condition_are_not_parted(alone: Alone, said: str) -> None:
    assert parted(alone, said)[0] == [said] and not alone.deps.rest


@table(
    ("said", "act", "rest"),
    [
        ("roll back and tell me why the whale sings", "roll back", "tell me why the whale sings"),
    ],
)
def test_an_order_beside_words_that_nobody_understood_is_done_and_the_words_are_named(
    alone: Alone, said: str, act: str, rest: str
) -> None:
    assert parted(alone, said)[0] == [act] and alone.deps.rest == rest


def screen_of(tmp_path: Path, state: str, *said: str, answers: tuple[str, ...] = ()) -> str:
    with home_of_state(tmp_path / "home", state), shell_in(tmp_path / "home", [], None) as shell:
        shell.answers.left = [*answers]
        for line in said:
            shell.type(line)
        return shell.screen.getvalue()


def test_of_two_orders_the_second_is_about_what_the_first_makes_and_not_about_an_older_one(tmp_path: Path) -> None:
    screen = screen_of(tmp_path, ONE, "quantize r1 and put it on port 8081")
    first, _, then = screen.partition("You also wanted: “put it on port 8081 (quantized)”")
    assert "?? quantize: about" in first and "deploy needs the quantized model" in then and "?? deploy" not in screen


def test_of_two_orders_the_second_is_priced_by_itself_once_the_first_was_declined(tmp_path: Path) -> None:
    screen = screen_of(tmp_path, TWO, "quantize r1 again and put it on port 8081")
    first, _, then = screen.partition("You also wanted: “put it on port 8081 (r1, quantized)”")
    assert "?? quantize: about" in first and "127.0.0.1:8081" in then and "?? deploy: about" in then


@pytest.mark.parametrize(
    "said", ["quantize it to 8 bits, then evaluate that against the base", "test the merged one against base"]
)
def test_what_a_test_is_set_against_is_not_the_model_that_it_tests(tmp_path: Path, said: str) -> None:
    screen = screen_of(tmp_path, ONE, said)
    assert "arm is 'base'" not in screen
    assert "evaluate merged on" in screen if "merged" in said else "against the base (quantized)” comes after" in screen


def test_a_number_alone_is_how_many_rows_an_order_for_rows_writes(tmp_path: Path) -> None:
    (file := tmp_path / "tickets.jsonl").write_text('{"prompt": "where is it?", "completion": "on its way"}\n' * 3)
    screen = screen_of(tmp_path, TWO, f"import {file} and then generate 120")
    assert "write 120 rows of" in screen and "?? generate: about" in screen


@pytest.mark.parametrize(
    "said", ["don't delete r2, just say whether r3 beats r1", "lösch r2 nicht, aber ist r3 besser als r1?"]
)
def test_a_run_of_which_something_is_not_to_be_done_is_not_the_one_asked_about(tmp_path: Path, said: str) -> None:
    state = "three finished runs r1, r2, r3; nothing is running, nothing served"
    screen = screen_of(tmp_path, state, said)
    assert "r3 (invoice-fields) and r1 (ticket-triage)" in screen and "r2 (" not in screen


def test_an_order_for_the_largest_base_that_fits_is_told_how_it_is_fetched(tmp_path: Path) -> None:
    screen = screen_of(
        tmp_path, "no run yet, an empty home", "look at this machine and get me the biggest base it can take"
    )
    assert "This machine:" in screen and re.search("“base model=.+/.+” prices fetching", screen)


def test_a_stop_beside_a_question_is_asked_about_and_the_question_answered(tmp_path: Path) -> None:
    screen = screen_of(tmp_path, SERVED, "stop serving, and tell me from which run that was")
    assert "End what is served?" in screen and "of r2 (quantized) is served" in screen


def test_a_condition_of_the_second_order_is_said_and_falls_with_the_first(tmp_path: Path) -> None:
    screen = screen_of(tmp_path, ONE, "test the merged one and if that looks fine serve it")
    assert "“if that looks fine” is yours to judge there" in " ".join(screen.split()) and "?? evaluate" in screen
    assert "was not begun either" in screen and "?? deploy" not in screen


@table(
    ("said", "now"),
    [
        ("how long did the training take and how much memory did it use", 2),
        ("what rank did r1 use and how many epochs did it get", 2),
        ("wie lange noch, und was passiert, wenn ich den Laptop zuklappe?", 2),
        ("how much disk does a 3B model need and can my machine train it?", 2),
    ],
)
def test_what_begins_to_ask_behind_a_question_is_one_more(alone: Alone, said: str, now: int) -> None:
    texts, _ = parted(alone, said)
    assert len(texts) == now or alone.deps.rest, texts


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("how long will all of it take and how much disk space do I need", "what could follow: preflight"),
        ("how long did the baseline take and how much memory did it need", "baseline took"),
    ],
)
def test_time_and_disk_of_nothing_by_name_are_those_of_what_is_ahead(tmp_path: Path, said: str, told: str) -> None:
    state = "a run is planned or begun with its expensive steps still ahead"
    assert told in " ".join(screen_of(tmp_path, state, said).split())


@pytest.mark.parametrize(("status", "offered"), [(DONE, True), (FAILED, False)])
def test_what_was_wanted_after_a_step_is_asked_about_once_that_has_ended(
    tmp_path: Path, status: str, offered: bool
) -> None:
    with home_of_state(tmp_path / "home", RUNNING), shell_in(tmp_path / "home", [], None) as shell:
        shell.type("how far along is it, and when it's done evaluate the adapter straight away")
        assert "Once that has ended its price is shown by itself" in " ".join(shell.screen.getvalue().split())
        (step,) = shell.talk.chat().deps.kept
        ended(shell, step, status)
        screen = shell.screen.getvalue()
    assert ("now to your words" in screen) is offered and ("was not begun; say it again" in screen) is not offered
    assert not shell.talk.chat().deps.kept


def test_what_was_wanted_after_a_step_is_no_answer_to_what_is_open_then(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", RUNNING), shell_in(tmp_path / "home", [], None) as shell:
        shell.type("how far along is it, and when it's done evaluate the adapter straight away")
        (step,) = shell.talk.chat().deps.kept
        shell.type("I want a model that turns my meeting notes into haikus")
        ended(shell, step, DONE)
        screen = shell.screen.getvalue()
    assert "You also wanted “when it's done evaluate" in screen and "when: " not in screen.partition("You also")[2]


def ended(shell: Shell, step: str, status: str) -> None:
    with shell.store.write() as conn:
        conn.execute("UPDATE steps SET status = ? WHERE step = ?", (status, step))
    shell.talk.ended(shell.store.step(step))
    shell.answer_questions()


@pytest.mark.heavy
@pytest.mark.parametrize(
    "said",
    [
        "which is better and serve that one", "vergleich r1 und r2 und deploye den besseren",
        "compare r1 and r2, then deploy whichever has the better target score",
    ],
)  # fmt: skip
def test_a_choice_that_is_left_to_the_results_is_made_by_a_paired_test(tmp_path: Path, said: str) -> None:
    tied = " ".join(screen_of(tmp_path / "a", TWO, said).split())
    assert "no difference is shown" in tied and "So the results choose neither, and nothing was begun" in tied
    assert "?? deploy" not in tied
    clear = " ".join(screen_of(tmp_path / "b", LESS, said).split())
    assert "r1 is better (p < 0.001). So it is r1:" in clear and "r1): serve the quantized model" in clear


def test_which_of_two_arms_is_meant_is_asked_back(tmp_path: Path) -> None:
    said = "compare base and adapter, tell me which is better and deploy it"
    screen = screen_of(tmp_path, TWO, said)
    assert "“deploy the adapter model”" in screen and "?? deploy" not in screen


@pytest.mark.heavy
def test_an_order_beside_a_question_about_a_run_is_of_that_run(tmp_path: Path) -> None:
    screen = screen_of(tmp_path, TWO, "how did r1 do and deploy the quantized one")
    assert ", r1): serve the quantized model" in screen


def test_a_base_that_is_named_beside_an_import_is_told_how_it_is_had(alone: Alone) -> None:
    screen = io.StringIO()
    alone.deps.show = Console(file=screen, width=160).print
    said = alone.hears("import rows.jsonl and train llama 3.2 1b on it")
    told = " ".join(f"{said} {screen.getvalue()}".split())
    assert "Nothing was imported or begun" in told and "Of train nothing was begun" in told
    assert "“base model=meta-llama/Llama-3.2-1B" in told


SERVED = "at least two finished runs; a model of one of them is served now, and another was served before it"


@pytest.mark.parametrize(
    ("said", "asks", "told"),
    [
        ("can u swicth bakc to the modell form befor pls", True, "serve the quantized model of r1 (a10)"),
        ("how do I go back to the one served before?", False, "brings the deployment before this one, at its price"),
        ("don't go back to the earlier one", False, "nothing was begun"),
    ],
)
def test_to_go_back_is_ordered_asked_about_or_denied(tmp_path: Path, said: str, asks: bool, told: str) -> None:
    screen = " ".join(screen_of(tmp_path, SERVED, said).split())
    assert told in screen and ("?? deploy: about" in screen) is asks, screen


@pytest.mark.parametrize(
    "said", ["put the previous model back please", "vuelve al modelo anterior", "bitte wieder das Modell davor"]
)
def test_the_model_before_is_the_one_that_was_served_before(tmp_path: Path, said: str) -> None:
    screen = screen_of(tmp_path, SERVED, said)
    assert "serve the quantized model of r1 (a10)" in screen


def test_what_an_import_dropped_is_told_as_it_ends_and_not_of_older_rows(tmp_path: Path) -> None:
    (file := tmp_path / "tickets.jsonl").write_text('{"prompt": "where is it?", "completion": "on its way"}\n' * 3)
    said = f"import {file} and tell me how many rows you dropped"
    screen = screen_of(tmp_path, "r1 was released as GGUF in an earlier step", said)
    assert "incompatible" in screen and "22 rows were dropped" not in screen


@table(
    ("state", "said", "shows"),
    [
        ("three finished runs r1, r2, r3", "compare r1, r2 and r3 on the general block",
         ("general: r1 base 32 of 33", "general in r3: base 32 of 33")),
        ("a model of one of them is served now", "what does my model pass?",
         ("is served at http://", "Of r2 quantized")),
        ("r1 is merged, nothing tested after the merge", "what is left to do in r1?",
         ("The merged model of r1 was not tested",)),
    ],
)  # fmt: skip
def test_beside_results_stands_what_else_they_are_about(
    tmp_path: Path, state: str, said: str, shows: tuple[str, ...]
) -> None:
    screen = " ".join(screen_of(tmp_path / str(abs(hash(said))), state, said).split())
    assert [one for one in shows if one not in screen] == [], screen
