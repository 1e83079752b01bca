"""Only a clear yes is a yes; nobody there and too many hours are neither a yes nor a no."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.commands import approvals
from tunesmith.agent.commands.approvals import (
    HashApprover,
    TerminalApprover,
    YesApprover,
    begins_with_yes,
    ends,
    is_no_and_yes,
    nobody,
    question,
    read_answer,
)
from tunesmith.agent.repl import shell
from tunesmith.memory.errors import ApprovalPending
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Estimate, Plan
from tunesmith.tools.pipeline.run_step import agree, price, propose
from tunesmith.tools.pipeline.workspace import Approver, Edited, StepRequest, Workspace

pytestmark = pytest.mark.heavy


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is typed ahead of a question is a terminal's matter, and tested on one (`test_repl`)."""
    monkeypatch.setattr(approvals, "GRACE_S", 0.0)


def plan(seconds: float = 60.0, summary: str = "train") -> Plan:
    return Plan(
        stage="train",
        run="r1",
        summary=summary,
        steps=("one",),
        request={},
        estimate=Estimate(seconds=seconds, basis="x"),
    )


@table(
    "text",
    [
        "y", "yes", "Yes", "YES!", " yes please ", "yes, please.", "ok", "okay", "yes, start it", "yes pls", "ok go",
        "ja", "Ja, bitte", "yes please start", "go ahead", "do it", "sure, go on", "yes, train it",
        "Yes start training", "sounds good", "oui", "sí", "да", "好的", "да!", "yep thanks", "alright then",
        "好的，开始吧", "of course", "klar, mach das",
        "yes I agree", "ok let's go", "d'accord", "sì, procedi pure", "tak, dawaj", "na dann mal los",
        "va bene", "fine, do it", "Yep, off you go.", "off you go", "Tak, zaczynaj",
        "pode ir", "ga maar", "tak, lecimy", "on y va", "ja, fang an", "ja, ga je gang",
        "k go", "approved, kick it off", "no dobra, lecimy", "Dobrze, proszę zaczynać.", "alright, let’s do this",
        "well, go ahead then", "go ahead, thats fine", "looks good, go ahead", "looks good go ahead",
        "sieht gut aus, leg los", "está bien así, dale", "va bene così, parti", "zo is het goed, begin maar",
        "great, start it", "yea sure", "good to go", "gut, mach", "na klar, los", "dann fang bitte an",
        "es kann losgehen", "geht klar", "bueno, hazlo", "sí, dale", "venga, empieza", "allez, vas-y", "bon, lancez",
        "d’accord", "dai, vai", "perfetto, iniziamo", "tá bom, manda ver", "beleza, pode começar",
        "is goed, begin maar",
        "akkoord", "prima, start maar", "jasne, odpalaj", "no to lecimy", "zgoda", "👍",
        "no to zaczynaj", "no to lecimy", "yes, start it now", "ja, sofort", "oui, tout de suite", "sí, por favor",
        "va bene, fallo", "sim, pode ir, obrigado", "ja hoor, doe maar", "tak, od razu", "mach ruhig", "let’s go",
        "well, let’s start", "sure, go on, thanks", "allez-y, merci", "gracias, adelante", "ja graag, start maar",
        "sounds good to me",
    ],
)  # fmt: skip
def test_a_yes_is_a_yes_however_politely_it_is_said(text: str) -> None:
    answer = read_answer(text, by="t", stage="train")
    assert answer is not None and answer.yes


@table("text", ["", " ", "\t\n"])
def test_enter_alone_is_no_answer(text: str) -> None:
    assert read_answer(text, by="t") is None


@table("text", ["let it run", "kick it off", "launch it", "niech leci"])
def test_an_order_to_start_agrees_to_no_other_question(text: str) -> None:
    """`End it?`"""
    assert read_answer(text, by="t") is None and read_answer(f"yes, {text}", by="t") is None
    answer = read_answer(text, by="t", stage="train")
    assert answer is not None and answer.yes


BEGIN_WITH_YES = (
    "yes but with rank 8", "yes?", "yes why not", "yes, deploy", "ok but later", "go away", "start over", "yes no",
    "sure, if it is cheap", "ok stop", "go ahead and don't", "yes with half the rows", "ja aber nicht jetzt", "好？",
    "可以，但是先告诉我要多久？", "oui mais moins cher", "ja, aber erst morgen", "好的，但是先告诉我要多久",
    "go ahead and delete the old one too", "va bene, ma domani", "tak, ale później",
    "ja maar niet nu", "ok, off", "yes, turn it off", "approved, deploy now", "dale pero mañana",
    "ja, wenn es billig ist",
    "dobra, ale później", "vas-y doucement", "mach aus", "si, si es barato", "ja maar", "start with fewer rows",
    "ja, gleich", "yes, well...", "yes, well", "ok... hmm", "ok so", "ja also", "oui bon", "sí, bueno",
    "go to the start", "go to this step", "ok cool it", "good start", "good start, yes",
    "great start then", "sieht gut aus, aber später", "looks good but why 16",
    "está bom mas depois",
    "yes, a great start", "yes...", "yes, I guess", "sure, soon",
    "go ahead in a bit", "nice start", "ok then, hm", "yeah right", "ja, na gut", "ja ja", "ja, nachher",
    "ja doch nicht", "los, aber gleich", "gut, ja", "oui, bientôt", "oui, alors", "vas-y demain", "ok, bon",
    "oui, tout à l'heure", "sí, luego", "vale, pues", "sí, en un rato", "dale, mañana", "claro, bueno", "sì, dopo",
    "va bene, allora", "sì, fra poco", "vai, ma piano", "sim, depois", "sim, bom", "pode ir amanhã",
    "tá bom, daqui a pouco", "beleza, então", "ja, straks", "ja, nou", "doe maar later", "ja, zo meteen",
    "tak, zaraz", "no dobra, potem", "tak, chyba", "dobra, jutro", "tak, ale zaraz", "no dobra, to start",
)  # fmt: skip
NEITHER = (
    "está bien así", "va bene così", "zo is het goed",
    "use rank 8 instead", "yesterday", "1", "yess", "too slow", "maybe", "hm", "rank 8",
    "fine", "fine, but later", "fine whatever",  # Italian for the end
    "how much disk", "可以先等等吗", "startle", "i said yes", "continue", "jacket", "i go now",
    "laat maar", "ya vale", "to go",
    # A no that goes on as a yes.
    "no, go ahead", "no problem, start it", "nein, mach ruhig", "non, vas-y", "não, pode ir",
    "nie ma problemu, zaczynaj",
    "no, not yet... ok go", "pas maintenant. bon, vas-y",
    "wait, ok go", "\N{RIGHT-TO-LEFT OVERRIDE}yes",
    "na ja", "fallo", "hm, yes", "naja, ok", "bof, oui", "beh, sì", "nou ja", "no wait, yes",
)  # fmt: skip
NOS = (
    "no", "nope", "No, too slow", "not yes", "never", "stop", "later", "not now, yes?", "don't start it", "nein danke",
    "cancel that", "wait", "n", "no go", "nie zaczynaj", "nie zaczynaj teraz", "no lo hagas", "no, start later",
    "nee joh, laat maar", "no, not ok",
    "25 minutes?? absolutely not, I've got a class to teach", "auf keinen Fall!", "ni hablar, es muy caro",
    "hm, pas maintenant", "assolutamente no", "de jeito nenhum", "te lang. zeker niet", "na pewno nie, za drogo",
    "no to start", "No, to start it", "no to begin", "no to go ahead", "no, to launch it", "nope, to run it",
    "no to all of it", "no to that", "nein, gleich", "nicht starten", "non, plus tard", "no, mañana", "no, dopo",
    "não, depois", "nee, straks", "nie, potem", "no just go away", "never start it",
)  # fmt: skip


@table(
    ("text", "remark"),
    [
        *((text, "says more than yes") for text in BEGIN_WITH_YES),
        *((text, "neither a yes nor a no") for text in NEITHER),
    ],
)
def test_what_is_no_plain_yes_and_no_no_is_asked_about_until_one_is_said(text: str, remark: str) -> None:
    said: list[str] = []
    lines = iter([text, text, text, "no"])

    def ask(question: str) -> str:
        said.append(question)
        return next(lines)

    answer = TerminalApprover(ask)(plan(), "s1")
    assert (answer.yes, answer.reason, len(said)) == (False, "", 4), "the plain no at the end is the one that counts"
    assert all(remark in question and "[yes / no" in question for question in said[1:])


@table("text", NOS)
def test_a_no_is_a_no_at_once_with_its_words_as_the_reason(text: str) -> None:
    answer = read_answer(text, by="t")
    assert answer is not None and not answer.yes and answer.reason in ("", text)


def test_what_begins_with_a_no_is_no_yes_whatever_the_tables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    said = approvals.sayings
    monkeypatch.setattr(
        approvals, "sayings", lambda *kinds: said(*kinds) | ({("no", "to")} if "opening" in kinds else set())
    )
    answer = read_answer("no to start", by="t", stage="train")
    assert answer is not None and not answer.yes


@table("text", ["yes ", "please ", "no ", "no, ", "not now. ", "x "])
def test_an_answer_that_is_too_long_is_neither_and_is_not_parted_into_words(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parted: list[int] = []
    parts = approvals._parts
    monkeypatch.setattr(approvals, "_parts", lambda words: parted.append(len(words)) or parts(words))
    long = text * 40_000
    assert read_answer(long, by="t", stage="train") is None and not ends(long)
    assert not begins_with_yes(long, "train") and not is_no_and_yes(long, "train")
    assert max(parted, default=0) <= approvals.LONGEST


END_IT = (
    "yes", "y", "Yes!", "yes please", "yes, end it", "stop it", "sure", "ok", "ja", "ja, bitte", "oui", "sí", "si",
    "sì", "sim", "tak", "claro", "certo, fermalo", "ja, beende es", "oui, arrête", "tak, zatrzymaj",
    "jazeker", "да", "是",
)  # fmt: skip
NOT_TO_END = (
    "go", "go on", "go ahead", "avanti", "vai avanti", "vai", "adelante", "dale", "it's fine", "that's fine",
    "keep going", "fang an", "mach weiter", "procedi pure", "begin maar", "ga maar", "zacznij", "lecimy",
    "start", "let it run",
    "fine", "va bene", "tá bom", "vas-y", "c'est bon", "alles klar", "passt", "sounds good",
    "yes, go on", "yes?", "yes, well", "na ja", "ja, gleich", "yes but later", "end it?", "ok...", "let it end",
    "", "hm",
)  # fmt: skip


@table("text", END_IT)
def test_a_plain_yes_ends_what_is_asked_about(text: str) -> None:
    assert ends(text)


@table("text", NOT_TO_END)
def test_what_is_to_be_ended_is_ended_by_a_plain_yes_alone(text: str) -> None:
    assert not ends(text)


@table(
    ("lines", "ended", "asked"),
    [
        (["yes"], True, 1),
        (["no"], False, 1),
        ([""], False, 1),
        (["go on", "no"], False, 2),
        (["go on", "it's fine", "ja, bitte"], True, 3),
    ],
)
def test_the_shell_asks_until_it_is_clear_whether_to_end_it(
    monkeypatch: pytest.MonkeyPatch, lines: list[str], ended: bool, asked: int
) -> None:
    monkeypatch.setattr(approvals, "GRACE_S", 0.0)
    questions: list[str] = []
    answers = iter(lines)

    def ask(question: str) -> str:
        questions.append(question)
        return next(answers)

    assert shell.Shell.confirm(cast(Any, SimpleNamespace(ask=ask)), "End it?") is ended and len(questions) == asked
    assert all(one.endswith("End it? (yes or no) ") for one in questions), questions


def test_why_shows_all_of_the_plan_and_asks_again() -> None:
    lines = iter(["why", "yes"])
    shown: list[str] = []
    approver = TerminalApprover(lambda question: next(lines), show_all=lambda plan, step: shown.append(step))
    assert approver(plan(), "s1").yes and shown == ["s1"]


def test_the_question_names_what_can_be_answered_and_a_field_of_this_very_step() -> None:
    asked = plan().model_copy(update={"request": {"lora_rank": 16}})
    assert question(asked) == "train: about 1 min 00 s. Start? [yes / no / always / lora_rank=8] "
    assert question(plan()).endswith("Start? [yes / no / always / why] ")


@table(
    ("text", "fields"),
    [
        ("lora_rank=8", {"lora_rank": "8"}),
        ("lora_rank = 8", {"lora_rank": "8"}),
        ("lora_rank= 8.", {"lora_rank": "8"}),
        ("lora_rank==8", {"lora_rank": "8"}),
        ("--lora-rank=8", {"lora_rank": "8"}),
        ("Lora_Rank=8", {"lora_rank": "8"}),
        ("yes lora_rank=8", {"lora_rank": "8"}),
        ("Yes, go ahead, but with lora_rank = 8!", {"lora_rank": "8"}),
        ("lora_rank=8 epochs=2", {"lora_rank": "8", "epochs": "2"}),
        ("lora_rank=8, epochs = 2 and learning_rate=1e-4", {"lora_rank": "8", "epochs": "2", "learning_rate": "1e-4"}),
        ("lora_rnk=8", {"lora_rnk": "8"}),
        ("whatever='two words'", {"whatever": "two words"}),
    ],
)
def test_a_field_with_a_value_is_an_edit_however_it_is_typed(text: str, fields: dict[str, str]) -> None:
    with pytest.raises(Edited) as edited:
        TerminalApprover(lambda question: text)(plan(), "s1")
    assert edited.value.fields == fields


@table("text", ["no, a=b looks wrong", "No lora_rank=8 please", "don't, x=1 is off", "nope = nope"])
def test_what_begins_with_a_no_is_a_no_whatever_stands_in_it(text: str) -> None:
    answer = TerminalApprover(lambda question: text)(plan(), "s1")
    assert not answer.yes and answer.reason == text


@table("text", ["lora_rank=", "=8", "=", "yes =", "why is lora_rank=8", "goal=two words", "run=r2"])
def test_an_edit_that_cannot_be_read_is_told_and_asked_again(text: str) -> None:
    """Neither a yes nor a no."""
    lines = iter([text, "no"])
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return next(lines)

    assert not TerminalApprover(ask)(plan(), "s1").yes
    assert len(asked) == 2 and "sets nothing in this step" in asked[1] and asked[1].endswith(asked[0])


def test_a_wrong_field_is_told_with_the_nearest_right_one_and_nothing_is_decided(tmp_path: Path) -> None:
    """The real plan of a base step, from its price to the question that stands again."""
    told: list[str] = []
    ws = Workspace(Store(tmp_path), None, lambda event, **data: told.append(str(data.get("text", ""))))
    run = ws.store.new_run("tiny")
    priced = price(ws, StepRequest("base", {"model": str(make_tiny_model(tmp_path / "tiny"))}, run))
    step = propose(ws, priced)
    lines = iter(["rol=teacher", "yes revison = 1"])

    def ask(question: str) -> str:
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line

    with pytest.raises(ApprovalPending):
        agree(ws, step, priced, TerminalApprover(ask))
    assert "did you mean 'role'?" in "".join(told) and "did you mean 'revision'?" in "".join(told)
    assert [s.status for s in ws.store.priced_steps()] == ["planned"] and not ws.store.read("SELECT 1 FROM approvals")


def test_a_bare_no_needs_no_reason() -> None:
    answer = read_answer("No", by="t")
    assert answer is not None and not answer.yes and answer.reason == ""


def test_the_terminal_asks_again_until_something_was_said() -> None:
    lines = iter(["\n", "", "no, too slow\n"])
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return next(lines)

    answer = TerminalApprover(ask)(plan(), "s1")
    assert (answer.yes, answer.reason, len(asked)) == (False, "no, too slow", 3)
    assert "1 min" in asked[0]


def test_a_closed_terminal_decides_nothing() -> None:
    def ask(question: str) -> str:
        raise EOFError

    with pytest.raises(ApprovalPending, match="closed"):
        TerminalApprover(ask)(plan(), "s1")


def test_yes_stops_at_its_hours() -> None:
    assert YesApprover()(plan(seconds=1e6), "s1").yes
    assert YesApprover(max_hours=1)(plan(seconds=3500), "s1").yes
    with pytest.raises(ApprovalPending, match=r"1\.11 h more, over --max-hours 1"):
        YesApprover(max_hours=1)(plan(seconds=4000), "s1")


def test_hours_that_are_spent_count() -> None:
    approver = YesApprover(max_hours=1)
    approver._started -= 3000
    assert approver(plan(seconds=500), "s1").yes
    with pytest.raises(ApprovalPending, match=r"0\.83 h are spent"):
        approver(plan(seconds=700), "s1")


def test_a_hash_approves_only_its_own_plan() -> None:
    assert HashApprover(plan().hash[:12])(plan(), "s1").yes
    with pytest.raises(ApprovalPending):
        HashApprover(plan().hash[:12])(plan(summary="train longer"), "s1")


@pytest.mark.parametrize("approver", [nobody, YesApprover(max_hours=1e-9)])
def test_a_pending_step_is_told_with_how_to_approve_it(approver: Callable[..., object] | Approver) -> None:
    with pytest.raises(ApprovalPending, match=f"tunesmith train --approve {plan().hash[:12]}"):
        approver(plan(), "s1")
