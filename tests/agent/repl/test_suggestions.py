"""What an answer proposes is understood when it is typed back: in every state of a home, without a driver."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.driver.exam_home import make_exam_home
from tests.fixtures.stored_runs import add_baseline, add_rows, baseline_run, digest, new_builder
from tunesmith.agent.commands import parser, queries
from tunesmith.agent.driver import describing, drafts, fallback, interview
from tunesmith.agent.driver.turn_deps import Call, TurnAnswer, TurnDeps
from tunesmith.agent.repl import bare, step_ended
from tunesmith.agent.repl.command_table import COMMANDS, TOPICS
from tunesmith.agent.repl.greeting import greeting
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.workspace import Decision, Workspace

_SUGGESTED = re.compile(r"“([^”]+)”|`([^`]+)`|'([a-z][^']{2,40})'")
_LOST = ("I do not know what", "I did not catch", "say it in other words", "is done. Ask")
_SLOT = re.compile(r"…|\.\.\.|\b(?:FILE|MODEL|RUN|STEP|FIELD|NAME|PLAN|MESSAGE|ADDRESS|SELECT|TEXT|R|S)\b")
"""Of what is to be filled in: it is no suggestion to be typed as it stands."""
_DATA = re.compile(
    r"answered:|→|^\s*\S+-\d{3}\b|^\s*g\d{3}\b|, case |(?:fails?|passes)\): |"
    r"^\s+(?:goal|when|what|never|example)\b|^\w+: .* ✓"
)
"""Lines that quote a case, a row, an answer of a model, or what was said of a behaviour."""
_NOT_TYPED = re.compile(r"(?:settings\.toml|prompts/|behaviour\.yaml|--?\w|\w+=\S+$|curl |hf |pip |make )")

FRESH = ("how did the last run go?", "which cases failed?", "go on", "what should I try next?", "what is running?",
         "is anything served?", "train", "yes", "blah", "hello", "help", "thanks", "bye", "who are you?",
         "what happened", "write a report")  # fmt: skip
FINISHED = (*FRESH, "why?", "how long did training take?", "why did target-017 fail?", "did it get worse anywhere?",
            "show me some rows", "how big is the adapter?", "evaluate the adaptor", "is it overfitting?",
            "what can you do", "stop", "where is the report", "that is wrong", "compare base and adapter",
            "roll back", "a higher rank", "generate rows about billing", "delete r1", "approve it")  # fmt: skip


def fresh(home: Path) -> Store:
    return Store(home)


def finished(home: Path) -> Store:
    return Store(make_exam_home(home))


def critique_failed(home: Path) -> Store:
    build = new_builder(home)
    base, _ = add_baseline(build)
    add_rows(build, base)
    step = build.step("critique", estimated=(3.0, 1 << 20))
    build.end(step, 1.0, 1 << 20, error="10 rows leak; drop them with on_leak=drop")
    build.store.set_run_status(build.run, "failed")
    return build.store


def waiting(home: Path) -> Store:
    store, run = baseline_run(home)
    store.propose(run, "generate", plan={}, plan_hash=digest("later"), estimated_seconds=60.0)
    return store


def interview_open(home: Path) -> Store:
    store = Store(home)
    begun = drafts.begin(home, "haiku about the weather", "fast", True)
    describing.take(home, begun, "when somebody asks about the weather")
    return store


STATES: dict[str, tuple[Callable[[Path], Store], tuple[str, ...]]] = {
    "fresh": (fresh, FRESH),
    "finished": (finished, FINISHED),
    "critique failed": (critique_failed, (*FRESH, "why did it fail?", "what failed?")),
    "waiting": (waiting, (*FRESH, "what waits?")),
    "interview open": (interview_open, ("what did I say so far?", "yes", "no", "help", "back", "what do you mean?")),
}


def deps_of(store: Store) -> TurnDeps:
    ws = Workspace(store, "/bin/true", lambda event, **data: None)
    return TurnDeps(ws, lambda plan, step: Decision(False, "test", "no"), lambda shown: None, lambda plan: "started",
                    level="fallback")  # fmt: skip


def said_to(deps: TurnDeps, words: str) -> TurnAnswer | Call | None:
    deps.begin_turn(words)
    opened, spoken = drafts.open_interview(deps.store.home), fallback.Spoken()
    return interview.turn(deps, spoken, opened) if opened else fallback.turn(deps, spoken)


def suggestions(text: str) -> set[str]:
    told = "\n".join(line for line in text.splitlines() if not _DATA.search(line))
    found = {one or two or three for one, two, three in _SUGGESTED.findall(told)}
    return {words.strip() for words in found if not _SLOT.search(words) and not _NOT_TYPED.match(words)}


def understood(words: str, question: str, before: Path, home: Path) -> bool:
    """As a shell command, a slash command, a bare one, or a sentence that code reads in this state."""
    if words.startswith("tunesmith"):
        return parser.parse(words.split()[1:]) is not None
    if command := bare.command(words):
        name, _, rest = command.partition(" ")
        if name == "help" and rest:
            return rest in TOPICS or rest in catalog.BY_NAME
        return name in {*COMMANDS, *catalog.BY_NAME, *queries.COMMANDS, "suite", "quit"}
    shutil.copytree(before, home)
    deps = deps_of(Store(home))
    if not question.startswith("("):
        said_to(deps, question)
    answer = said_to(deps, words)
    return isinstance(answer, Call) or (isinstance(answer, TurnAnswer) and not any(s in answer.text for s in _LOST))


@pytest.mark.heavy
@pytest.mark.parametrize("state", STATES)
def test_every_suggestion_of_every_answer_works_when_it_is_typed(state: str, tmp_path: Path) -> None:
    make, questions = STATES[state]
    proposed: dict[str, str] = {}
    make(tmp_path / "before")
    shutil.copytree(tmp_path / "before", tmp_path / "asked")
    store = Store(tmp_path / "asked")
    texts = {"(the start)": "\n".join(greeting(store))}
    for step in store.steps()[-1:]:
        texts["(its end)"] = "\n".join(step_ended.words(store, step))
    for question in questions:
        answer = said_to(deps_of(store), question)
        texts[question] = answer.text if isinstance(answer, TurnAnswer) else ""
    for question, text in texts.items():
        echoed = {question, *re.findall(r"[“'](.*?)[”']", question)}
        proposed |= {words: question for words in suggestions(text) - echoed if words.lower() not in question.lower()}
    assert proposed, "or nothing was tested"
    lost = [
        f"{words!r}, after {question!r}: {texts[question][:200]}"
        for n, (words, question) in enumerate(sorted(proposed.items()))
        if not understood(words, question, tmp_path / "before", tmp_path / str(n))
    ]
    assert lost == [], "\n".join(lost)


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        ("exit", "quit"), ("Bye!", "quit"), ("quit", "quit"), ("help", "help"), ("demo", "demo"), ("report", "report"),
        ("runs show r1", "runs show r1"), ("tunesmith compare r1", "compare r1"), ("resume r2", "continue r2"),
        ("/train lora_rank=8", "train lora_rank=8"), ("demo --fast", "demo --fast"), ("jobs", "jobs"),
        ("report the weather as three bullet points", ""), ("exit codes are what I want", ""), ("run", ""),
        ("compare base and adapter", ""), ("why did it fail?", ""), ("how do I cook an egg? => - Boil it.", ""),
    ],
)  # fmt: skip
def test_a_command_needs_no_slash_and_a_sentence_is_none(typed: str, command: str) -> None:
    assert bare.command(typed) == command


def test_go_on_tries_a_step_again_that_failed(tmp_path: Path) -> None:
    answer = said_to(deps_of(critique_failed(tmp_path)), "go on")
    assert isinstance(answer, Call) and answer.tool == "critique"


def test_more_goes_on_with_a_page_where_one_has_more_and_else_asks_for_more_of_the_answer() -> None:
    assert bare.command("more") == "more" and bare.command("/more", page_left=False) == "more"
    assert bare.command("more", page_left=False) == "" and bare.command("help", page_left=False) == "help"
