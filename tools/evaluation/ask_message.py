"""A message that somebody types for a model: checked, put as the run puts its own, and held against the context."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.context import Need, longest
from tunesmith.tools.suites.case import PRIMARY_BLOCK, Case
from tunesmith.tools.suites.loading import newest_cases

MESSAGE_BYTES_MAX = 500_000
"""More than any context here holds; so much is read before anything is counted."""
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_COMMON_SHARE = 0.5
"""What more than this share of a run's conversations has in common is how it puts a message."""


def read_message(given: str | bytes) -> str:
    """The text of a message, with `\\n` at its line ends. Raises BadInput for one that is none."""
    # An argument's bytes that are no UTF-8 came in as surrogates: the very bytes come back, and are named below.
    data = given if isinstance(given, bytes) else given.encode(errors="surrogateescape")
    if len(data) > MESSAGE_BYTES_MAX:
        raise BadInput(f"the message has more than {MESSAGE_BYTES_MAX:,} bytes; ask a part of it")
    try:
        text = data.decode().replace("\r\n", "\n").replace("\r", "\n").strip()
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise BadInput(f"the message is not UTF-8 text (byte {error.start + 1} is 0x{byte:02X}); give text") from None
    if odd := _CONTROL.search(text):
        code, place = ord(odd[0]), odd.start() + 1
        raise BadInput(f"the message holds the control character U+{code:04X} as its character {place}; take it out")
    if not text:
        raise BadInput('the message is empty; give one in quotes, such as "Where is my parcel?", or pipe it in with -')
    return text


@dataclass(frozen=True, slots=True)
class Frame:
    """What a run puts around a message of its behaviour, in its test cases or, without any, in its rows."""

    system: str = ""
    before: str = ""
    after: str = ""

    def messages(self, text: str) -> list[dict[str, object]]:
        """The conversation of a message; one that is framed already is left as it is."""
        framed = text.startswith(self.before) and text.endswith(self.after)
        user = text if framed else f"{self.before}{text}{self.after}"
        system: list[dict[str, object]] = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": user}]

    def own(self, text: str) -> str:
        """A message without what the run puts around it."""
        framed = text.startswith(self.before) and text.endswith(self.after)
        return (text[len(self.before) : len(text) - len(self.after)].strip() or text) if framed else text

    @property
    def words(self) -> str:
        """The frame in one line; empty where nothing is put around a message."""
        around = " ".join(f"{self.before}…{self.after}".split()) if self.before or self.after else ""
        return " ".join(filter(None, (f"[system] {' '.join(self.system.split())}" if self.system else "", around)))


NO_FRAME = Frame()


def frame_of_run(store: Store, run: str) -> Frame:
    """How a run puts its messages: what most of its target cases have in common, else most of its generated rows."""
    return _common(_of_cases(store, run)) or _common(_of_rows(store, run)) or NO_FRAME


def _common(frames: Iterator[Frame]) -> Frame | None:
    counted = Counter(frames)
    frame, count = counted.most_common(1)[0] if counted else (NO_FRAME, 0)
    return frame if count > _COMMON_SHARE * counted.total() else None


def _of_cases(store: Store, run: str) -> Iterator[Frame]:
    for case in newest_cases(store, run):
        if case.block == PRIMARY_BLOCK:
            yield _frame(case.messages, [value for value in case.vars.values() if isinstance(value, str)])


def _of_rows(store: Store, run: str) -> Iterator[Frame]:
    steps = [step for step in store.steps(run) if step.stage == "generate"]
    for row in store.rows(steps[-1].id) if steps else ():
        if row.origin == "generated":
            yield _frame(row.prompt, [row.attributes.text])


def _frame(messages: object, texts: list[str]) -> Frame:
    """What stands around the longest of these texts in a conversation of one turn."""
    turns = [turn for turn in messages if isinstance(turn, Mapping)] if isinstance(messages, list | tuple) else []
    system = next((str(turn.get("content") or "") for turn in turns if turn.get("role") == "system"), "")
    users = [str(turn.get("content") or "") for turn in turns if turn.get("role") == "user"]
    if len(users) != 1:
        return Frame(system)
    matches = sorted((text for text in texts if text and text in users[0]), key=len)
    # The longest: one text may be a part of another.
    before, _, after = users[0].partition(matches[-1]) if matches else ("", "", "")
    return Frame(system, before, after)


def refuse_too_long(
    messages: list[dict[str, object]], *, answer_tokens: int, context_tokens: int, tokenizer_dir: Path
) -> Need:
    """What a conversation takes. Raises BadInput, with the numbers, where the context does not hold it."""
    case = Case(case_id="message", suite="", messages=tuple(messages))
    need = longest([case], lambda _: answer_tokens, tokenizer_dir, enough=context_tokens)
    if need.least > context_tokens:
        raise BadInput(
            f"the message has {need.prompt_tokens:,} tokens and its answer may have {answer_tokens:,}: this run's "
            f"conversations have {context_tokens:,}; shorten it"
        )
    return need
