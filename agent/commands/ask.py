"""`tunesmith ask` and `/ask`: one message, and the answers of a run's models side by side."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from tunesmith.agent.commands.ask_view import AnswersView, plain_text
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.settings import Settings
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.ask import STAYS_MINUTES, named_arms
from tunesmith.tools.evaluation.ask_message import MESSAGE_BYTES_MAX, read_message
from tunesmith.tools.pipeline.ask_models import Answered, Question, ask_models
from tunesmith.tools.pipeline.workspace import Approver

if TYPE_CHECKING:
    import argparse

_OPTION = r"--(?:(?:arms|run)[ =]+\S+|as-is)"
_LINE = re.compile(rf"(?P<before>(?:{_OPTION}(?:\s+|$))*)(?P<text>.*?)(?P<after>(?:\s+{_OPTION})*)\s*", re.DOTALL)


def ask(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`ask TEXT`: 0, or 1 where an arm gave no answer. Raises BadInput, NotFound, ApprovalPending, StepFailed."""
    from tunesmith.agent.commands.run_steps import approver_of

    text = read_message(piped_in() if args.text == ["-"] else " ".join(args.text))
    question = Question(text, args.run, named_arms(args.arms), as_is=args.as_is)
    return _tell(question, settings, store, out, approver_of(args, out))


def ask_line(line: str, settings: Settings, store: Store, out: Output, approver: Approver) -> int:
    """The same for the rest of a line, whose options stand before the message or behind it."""
    read = _LINE.fullmatch(line)
    assert read is not None, "any text matches"
    given = f"{read['before']} {read['after']}"
    options = dict(re.findall(r"--(arms|run)[ =]+(\S+)", given))
    text = read["text"]
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1]:
        text = text[1:-1]  # as one would write it in a shell
    if not text.strip():
        raise BadInput("/ask needs a message, such as: /ask Where is my parcel?")
    arms = named_arms(options.get("arms", ""))
    question = Question(read_message(text), options.get("run", ""), arms, as_is="--as-is" in given)
    return _tell(question, settings, store, out, approver)


def piped_in() -> bytes:
    """What is piped in, or typed up to Ctrl-D; one byte more than is taken at most."""
    return sys.stdin.buffer.read(MESSAGE_BYTES_MAX + 1)


def _tell(question: Question, settings: Settings, store: Store, out: Output, approver: Approver) -> int:
    out.asked.add("")  # shown from the first answer on, also where nobody had to be asked
    ws = settings.workspace(store, out.emit)
    try:
        answered = ask_models(ws, question, approver)
    finally:
        out.let_go()
    if out.as_json or out.page or sys.stdout.isatty():
        out.document(document(answered), AnswersView(answered.answers))
    else:
        print(plain_text(answered.answers), end="")
    if answered.frame.words:
        out.say(f"asked as {answered.run} asks its cases: “{answered.frame.words}”; --as-is asks the words alone")
    if answered.started:
        out.say(f"what was started answers on for {STAYS_MINUTES} minutes; `tunesmith serve status` shows it")
    return 1 if any(answer.error for answer in answered.answers) else 0


def document(answered: Answered) -> dict[str, object]:
    """The answers as `--json` prints them; a field that says nothing is left out."""
    answers = []
    for one in answered.answers:
        beside = {"tokens": one.tokens, "cut_at_tokens": one.cut_at_tokens, "error": one.error}
        fields = {"arm": one.arm, "artifact": one.artifact, "text": one.text, "seconds": round(one.seconds, 3)}
        answers.append(fields | {name: value for name, value in beside.items() if value})
    return {"run": answered.run, "answers": answers}
