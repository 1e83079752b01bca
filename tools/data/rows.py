"""Training rows, whatever their behaviour: as JSON lines, and what can be wrong with one.

The file is the truth: it is what a manifest hashes and a plan pins, and the one shape in which the stages hand rows on.
The table `rows` of the store is its index, for questions, verdicts and the report. A row keeps its `row_id` from the
writer to the gradient. Each check (form as a conversation, leftovers, secrets, language, loops) is code, takes
microseconds, and gives a kind and a reason. Of a person's rows it is told which repeat or contradict another one. Not
covered: whether a row means what it says.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write
from tunesmith.memory.json_values import picked
from tunesmith.memory.records import TrainingRow, Verdict
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.core.similarity import loops, normal, only_loops
from tunesmith.tools.core.wrong_values import sentence

VARIANTS = "variants.jsonl"
"""Beside a dataset's train.jsonl: other forms of its rows, each of a `variant_of`, seen in turn with it."""


class _Message(BaseModel, extra="allow"):
    role: str
    content: str | None
    """None, or empty, where the message is a tool call."""


class _Line(BaseModel):
    """What a line must hold; a user's own file may leave out all but the two conversations."""

    row_id: str = ""
    origin: str = ""
    prompt: list[_Message]
    completion: list[_Message]
    attributes: dict[str, JsonValue] = {}


def write_rows(path: Path, rows: Iterable[TrainingRow]) -> None:
    """Write rows, atomically. Verdicts are left to the store: a dataset holds kept rows alone."""
    lines = (
        {**picked(row, "row_id", "origin", "prompt", "completion"), "attributes": row.attributes.as_json()}
        for row in rows
    )
    atomic_write(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_rows(path: Path) -> list[TrainingRow]:
    """The rows of a file, at least one; a row without an id is named by its line. Raises BadInput naming the line."""
    with path.open(encoding="utf-8") as file:
        rows = [_row(path, number, line) for number, line in enumerate(file, 1) if line.strip()]
    if not rows:
        raise BadInput(f"{path} holds no rows; generate some first")
    return rows


def _row(path: Path, number: int, text: str) -> TrainingRow:
    """A line as a row. Raises BadInput, naming the line."""
    try:
        line = _Line.model_validate_json(text)
    except ValidationError as error:
        why = sentence(error.errors()[0], _Line)
        raise BadInput(f"{path}:{number} is not a row with prompt and completion messages: {why}") from None
    mute = [
        m for m in (*line.prompt, *line.completion) if m.content is None and not (m.model_extra or {}).get("tool_calls")
    ]
    if mute:
        raise BadInput(f"{path}:{number}: the {mute[0].role}'s message has neither content nor tool_calls")
    if not (line.prompt and line.completion):
        raise BadInput(f"{path}:{number}: prompt and completion must be non-empty lists of messages")
    conversations = line.model_dump(include={"prompt", "completion"})
    attributes = RowAttributes.of(line.attributes)
    return TrainingRow(line.row_id or f"line {number}", line.origin, **conversations, attributes=attributes)


# What can be wrong with one

ROLES = ("system", "user", "assistant", "tool")
ORDINARY = ("rehearsal", "near_miss")
"""Origins of rows that hold the base's own answers: no behaviour, and nothing to be judged by it."""
EXAMPLE = "example"
"""Origin of rows that are the user's own examples, where there are enough to keep others as blind cases."""

ORIGINS = ("imported", EXAMPLE)
"""Origins of rows whose answers a person gave."""
RULE = "rule"
"""Kind of verdict on an answer that breaks a rule."""
_TOKENS = re.compile(
    r"<\|[a-z_]{2,30}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:bos|eos|pad|unk)>|<(?:start|end)_of_turn>"
    r"|###\s*(?:Instruction|Response|Input|Assistant|Human)\b|^\s*(?:Human|Assistant|User|Bot):\s",
    re.IGNORECASE | re.MULTILINE,
)
_PLACES = re.compile(
    r"\{\{[^{}\n]{0,60}\}\}|\{%[^{}\n]{0,60}%\}|\blorem ipsum\b"
    r"|\[(?:insert|your|name|product|company|date)[^\]\n]{0,40}\]",
    re.IGNORECASE,
)
_SECRETS = re.compile(
    r"\bsk-[A-Za-z0-9_-]{16,}|\bAKIA[0-9A-Z]{12,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bhf_[A-Za-z0-9]{20,}"
    r"|\bxox[abprs]-[\w-]{10,}|\bAIza[\w-]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY|\beyJ[\w-]{10,}\.[\w-]{10,}\."
    r"|\bglpat-[\w-]{16,}|(?:api[_ -]?key|secret|token|passw(?:or)?d|bearer)\W{1,4}"
    r"(?=\S*\d)(?=\S*[A-Za-z])[^\s\"',;]{12,}",
    re.IGNORECASE,
)
_LONG_WORD = re.compile(r"[A-Za-z0-9+/_=-]{28,}")
_SECRET_BITS = 4.0
"""Entropy of a character from which a long word is no word: English has 4.1 over its alphabet, a word less."""
_INJECTIONS = re.compile(
    r"\b(?:ignore|disregard|forget)\b.{0,30}\b(?:previous|above|prior|earlier|all|your)\b.{0,30}"
    r"\b(?:instructions?|prompts?|rules?|messages?|form)\b"
    r"|\byou are now\b.{0,40}\b(?:free|unrestricted|jailbroken|dan|an? )"
    r"|\b(?:reveal|print|repeat)\b.{0,20}\b(?:system )?prompt\b|^\s*(?:system|developer)\s*:|\bnew instructions?\s*:"
    r"|\boverride\b.{0,20}\b(?:instructions?|rules?|safety)\b",
    re.IGNORECASE | re.MULTILINE,
)
_STOPWORDS = {
    "English": "the of and to in is that it for was on are with as be this have from you not at but we my he she by an "
    "or i me your can do what so",
    "German": "der die das und ist nicht ein eine ich zu mit für auf von dem den sie wir es im auch aber wie bei oder "
    "hat sind war nach mein",
    "French": "le la les de et est une un des du que qui dans pour pas je vous nous sur avec ce il elle au mais mon "
    "sont être plus très",
    "Spanish": "el la los las y es una un de que en por para no con se lo mi pero su al está muy hay como más del fue",
    "Italian": "il lo la gli le e è un una di che non per con del della sono mi ma come più anche nel al ho questo",
    "Portuguese": "o a os as e é um uma de que não para com do da em no na por mas meu minha está foi como mais",
    "Dutch": "de het een en is van ik niet dat op te zijn voor met die er maar ook aan bij naar mijn wat was heb",
}
_WORDS = {name: frozenset(word for word in words.split() if len(word) > 1) for name, words in _STOPWORDS.items()}
_SCRIPTS = (
    ("Greek", "\u0370", "\u03ff"), ("Cyrillic", "\u0400", "\u04ff"), ("Hebrew", "\u0590", "\u05ff"),
    ("Arabic", "\u0600", "\u06ff"), ("Indic", "\u0900", "\u0dff"), ("Thai", "\u0e00", "\u0e7f"),
    ("Chinese or Japanese", "\u3040", "\u9fff"), ("Korean", "\uac00", "\ud7af"),
)  # fmt: skip
_CUT_END = re.compile(
    r"(?:[,;:(\[{\"“–-]|\b(?:the|a|an|and|or|to|of|with|for|in|on|at|is|are|was|that|which|because|we|will))\s*$",
    re.IGNORECASE,
)


def is_persons(row: TrainingRow) -> bool:
    """Whether a person gave the row's answer."""
    return row.origin in ORIGINS


def fault_of(problem: str) -> Verdict:
    """The fault that a text tells, its kind before the colon."""
    kind, _, reason = problem.partition(": ")
    return Verdict(kind, reason or kind)


def conversation_fault(row: TrainingRow) -> Verdict | None:
    """Roles that no chat has: nothing to answer, an empty turn, an answer by somebody else, turns out of order."""
    if not row.prompt or not row.completion:
        return Verdict("roles", "a row needs messages to answer and an answer")
    for message in (*row.prompt, *row.completion):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            return Verdict("roles", f"{role!r} is no role of a chat; they are {', '.join(ROLES)}")
        calls = bool(message.get("tool_calls"))
        if not isinstance(content, str) and not (content is None and calls):
            return Verdict("roles", f"the {role}'s message is no text")
        if not (content or "").strip() and not calls:
            return Verdict(
                "empty", "there is no answer" if message in row.completion else f"the {role}'s turn is empty"
            )
    if row.prompt[-1]["role"] not in ("user", "tool"):
        return Verdict("roles", f"the answer follows a message of the {row.prompt[-1]['role']}, not one of the user")
    if row.completion[0]["role"] != "assistant" or row.completion[-1]["role"] != "assistant":
        return Verdict("roles", "the answer is not the assistant's")
    return _order(row)


def _order(row: TrainingRow) -> Verdict | None:
    """Turns that no chat has: a system message behind others, or one side twice in a row."""
    roles = [str(message["role"]) for message in (*row.prompt, *row.completion)]
    if "system" in roles[1:]:
        return Verdict("roles", "a system message stands behind others")
    talk = [role for role in roles if role != "system"]
    pairs = pairwise(talk)
    if talk[0] != "user" or any(a == b and a != "tool" for a, b in pairs):
        return Verdict("roles", "user and assistant do not take turns")
    return None


def text_fault(row: TrainingRow, *, allowed: frozenset[str]) -> Verdict | None:
    """Leftovers of templates, keys, injected instructions, another language, an answer cut off or in a loop.

    `allowed` are the kinds and languages that the user's own examples hold: what they show is meant.
    """
    answer, whole = _content(row.completion), _whole(row)
    for pattern in (_TOKENS, _PLACES):
        if "leftover" not in allowed and (odd := pattern.search(whole)):
            return Verdict("leftover", f"it holds {odd[0].strip()[:40]!r}")
    if secret := secret_fault(row, allowed=allowed):
        return secret
    if "secret" not in allowed and (odd_word := _keylike(whole)):
        return Verdict("secret", f"it holds {_hidden(odd_word)}, which looks like a key")
    if row.attributes.finish_reason == "length" and row.origin != "rehearsal" and row.origin != "near_miss":
        return Verdict("cut off", "the answer met the token limit")
    if "injection" not in allowed and row.origin not in ORDINARY and (odd := _INJECTIONS.search(whole)):
        return Verdict("injection", f"it holds an instruction to the model: {odd[0].strip()[:60]!r}")
    if (language := other_language(whole, allowed)) and row.origin not in ORDINARY:
        return Verdict("language", f"it is in {language}")
    # An ordinary answer is not learned, so a repeat in it does no harm; one that only loops holds the model to nothing.
    if only_loops(answer) if row.origin in ORDINARY else loops(answer) or loops(_content(row.prompt[-1:])):
        return Verdict("loop", "it repeats itself")
    return None


def token_fault(row: TrainingRow, special: Sequence[str]) -> Verdict | None:
    """A special token of the base in a text: as a token it would begin or end a turn, whoever wrote it and why."""
    whole = _whole(row)
    odd = next((token for token in special if token in whole), "")
    return Verdict("leftover", f"it holds {odd}, which the base reads as a token of its own") if odd else None


def secret_fault(row: TrainingRow, *, allowed: frozenset[str]) -> Verdict | None:
    """A key or a password by its form: what is trained on cannot be taken out of a model again."""
    odd = None if "secret" in allowed else _SECRETS.search(_whole(row))
    return Verdict("secret", f"it holds {_hidden(odd[0])}") if odd else None


def _whole(row: TrainingRow) -> str:
    return "\n".join(str(m.get("content") or "") for m in (*row.prompt, *row.completion))


def _content(messages: Sequence[Mapping[str, object]]) -> str:
    return str(messages[-1].get("content") or "") if messages else ""


def _hidden(key: str) -> str:
    """Of a key only its beginning is shown."""
    return f"{key[:6]}…"


def _keylike(text: str) -> str:
    """A long word of letters and digits with the entropy of a key; empty where there is none."""
    for match in _LONG_WORD.finditer(text):
        word = match[0]
        mixed = any(c.isdigit() for c in word) and any(c.isalpha() for c in word)
        counts = Counter(word)
        bits = -sum(n / len(word) * math.log2(n / len(word)) for n in counts.values())
        if mixed and bits >= _SECRET_BITS:
            return word
    return ""


def languages() -> frozenset[str]:
    """Those that can be told."""
    return frozenset(_WORDS) | {name for name, _, _ in _SCRIPTS}


def kinds_allowed_by(texts: Sequence[str]) -> frozenset[str]:
    """What of the above the user's own examples show, so that it is no fault in a row."""
    whole = "\n".join(texts)
    kinds = {"English"}
    if _TOKENS.search(whole) or _PLACES.search(whole):
        kinds.add("leftover")
    if _SECRETS.search(whole) or _keylike(whole):
        kinds.add("secret")
    if _INJECTIONS.search(whole):
        kinds.add("injection")
    kinds |= {language for text in texts if (language := other_language(text, frozenset({"English"})))}
    if any(_CUT_END.search(text) for text in texts):
        kinds.add("cut off")
    return frozenset(kinds)


def other_language(text: str, allowed: frozenset[str]) -> str:
    """The language that a text is written in where it is none of `allowed`; empty where that cannot be told."""
    letters = [c for c in text if c.isalpha()]
    for name, first, last in _SCRIPTS:
        share = sum(first <= c <= last for c in letters) / max(1, len(letters))
        if share > 0.15 and name not in allowed:  # a name or a quotation is less
            return name
    words, hits = _words(text), common_words(text)
    best = max(hits, key=lambda name: hits[name])
    own = max((hits[name] for name in allowed if name in hits), default=0)
    several = len(set(words) & _WORDS[best]) >= 2
    # Nearly a fifth of any text are the commonest words of its language; two languages share some of these.
    enough = several and hits[best] >= 0.18 * len(words) and hits[best] >= 2 * own
    return best if best not in allowed and enough else ""


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


def common_words(text: str) -> dict[str, int]:
    """Of each language how many words of a text are among its commonest ones."""
    words = _words(text)
    return {name: sum(word in known for word in words) for name, known in _WORDS.items()}


def may_be_in(text: str, language: str) -> bool:
    """Whether a text may be in a language, by its English name; also where that cannot be told."""
    if language in _WORDS:  # some of whose words are another one's too
        return not other_language(text, frozenset({language}))
    seen = other_language(text, frozenset())
    of_script = any(language in name for name, _, _ in _SCRIPTS)
    if not seen:
        return not of_script
    return language == seen or seen not in _WORDS or not of_script


def cut_off(answer: str, examples: Sequence[str], allowed: frozenset[str]) -> bool:
    """Whether an answer stops where no sentence does, and the user's own answers never do."""
    if "cut off" in allowed:
        return False
    if _CUT_END.search(answer):
        return True
    ends = {example.rstrip()[-1] for example in examples if example.rstrip()}
    closed = ends <= set(".!?)]}\"'”")
    return closed and answer.rstrip()[-1:] not in ends | set(".!?")


# Which repeat another one


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows that answer what another row answers: each with the other row's id."""

    same: Mapping[str, str]
    """In the same way: one of them is enough."""
    contradicted: Mapping[str, str]
    """In another way: one of them may be wrong, and code cannot tell which."""


def repeats_in(rows: Iterable[TrainingRow]) -> Repeats:
    """The repeats among a person's rows.

    Conversations of several answers contradict nobody: many begin alike and go on otherwise.
    """
    groups: dict[str, list[TrainingRow]] = {}
    for row in rows:
        if is_persons(row):
            groups.setdefault(_asked(row), []).append(row)
    same: dict[str, str] = {}
    contradicted: dict[str, str] = {}
    for group in groups.values():
        first: dict[str, str] = {}
        for row in group:
            answer = _answered(row)
            if answer in first:
                same[row.row_id] = first[answer]
            else:
                first[answer] = row.row_id
        if len(first) > 1 and all(len(row.completion) == 1 for row in group):
            ids = list(first.values())
            contradicted |= {row.row_id: next(i for i in ids if i != first[_answered(row)]) for row in group}
    return Repeats({name: other for name, other in same.items() if name not in contradicted}, contradicted)


def _asked(row: TrainingRow) -> str:
    turns = [[turn.get("role"), " ".join(str(turn.get("content") or "").split())] for turn in row.prompt]
    return json.dumps([turns, list(row.attributes.tools)], sort_keys=True)


def _answered(row: TrainingRow) -> str:
    """What a row answers, whatever its case and marks."""
    texts = [str(turn.get("content") or "") for turn in row.completion]
    plain = [normal(text, digits_count=True) or text.strip() for text in texts]  # marks alone are an answer too
    turns = [{**turn, "content": text} for turn, text in zip(row.completion, plain, strict=True)]
    return json.dumps(turns, sort_keys=True)
