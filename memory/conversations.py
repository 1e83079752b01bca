"""Conversations: every turn as it was said, and the messages that a later turn is given. Nothing is ever deleted:
a turn that was taken back is marked as such.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass

from tunesmith.memory.errors import NotFound
from tunesmith.memory.step_records import say
from tunesmith.memory.store import Store

_USER, _ASSISTANT, _MESSAGES, _UNDO, _SUMMARY = "user", "assistant", "messages", "undo", "summary"
_DRAFT, _DESCRIPTION, _WAITING = "draft", "description", "waiting"


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange: what was said, what was answered, and the model's messages in between."""

    number: int
    at: float
    prompt: str
    reply: str = ""
    messages: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A turn whose calls wait for the user: its messages so far, and the step of each call."""

    turn: int
    messages: tuple[object, ...]
    calls: dict[str, str]


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns that count, the oldest first, and what stands for those before a compaction."""

    id: str
    turns: tuple[Turn, ...]
    summary: str = ""
    draft: dict[str, object] | None = None
    """The plan that was proposed and not yet started, as the newest turn that changed it left it."""
    description: dict[str, object] | None = None
    """The new behaviour that was being described, likewise."""
    waiting: Waiting | None = None
    """What the newest turn was doing when it had to wait for the user; None where it has ended."""


class Conversations:
    """The conversations of one home."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def new(self) -> str:
        """An id that no conversation has; it is written with its first turn."""
        return f"c{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"

    def begin(self, conversation: str, prompt: str) -> int:
        """Write down what the user said, before anything is done about it; the number of the turn."""
        return self._write(conversation, _USER, prompt)

    def finish(self, conversation: str, turn: int, reply: str, messages: list[object]) -> None:
        """Write down what was answered, and the messages of the turn."""
        self._write(conversation, _ASSISTANT, reply)
        self._write(conversation, _MESSAGES, json.dumps({"turn": turn, "messages": messages}, ensure_ascii=False))

    def wait(self, conversation: str, turn: int, messages: list[object], calls: dict[str, str]) -> None:
        """Write down what a turn did before its calls were put to the user, until `finish` says what came of it."""
        entry = {"turn": turn, "messages": messages, "calls": calls}
        self._write(conversation, _WAITING, json.dumps(entry, ensure_ascii=False))

    def undecided(self, conversation: str, reply: str) -> None:
        """Write down what was said instead of an answer; the calls of the turn go on waiting."""
        self._write(conversation, _ASSISTANT, reply)

    def draft(self, conversation: str, turn: int, plan: dict[str, object] | None) -> None:
        """Write down the plan that stands proposed after a turn; None where none does any more."""
        self._write(conversation, _DRAFT, self._text({"turn": turn, "plan": plan}))

    def description(self, conversation: str, turn: int, statement: dict[str, object] | None) -> None:
        """Write down what was said of a new behaviour after a turn; None where none is being described any more."""
        self._write(conversation, _DESCRIPTION, self._text({"turn": turn, "said": statement}))

    def undo(self, conversation: str) -> Turn:
        """Take the newest turn back and return it. Raises NotFound where there is none."""
        turns = self.load(conversation).turns
        if not turns:
            raise NotFound("there is no turn to take back")
        self._write(conversation, _UNDO, str(turns[-1].number))
        return turns[-1]

    def waiting(self) -> str:
        """The conversation whose calls were put to the user last and that may still wait; empty where none does."""
        rows = self._store.read(
            "SELECT conversation FROM conversations WHERE role = ? ORDER BY id DESC LIMIT 1", _WAITING
        )
        return next((row["conversation"] for row in rows if self.load(row["conversation"]).waiting), "")

    def list(self) -> list[tuple[str, float, str]]:
        """(id, time of the last word, first words) of every conversation, the newest first."""
        rows = self._store.read(
            "SELECT conversation, max(at) AS last, (SELECT content FROM conversations f WHERE f.conversation ="
            " c.conversation AND f.role = 'user' ORDER BY f.id LIMIT 1) AS first FROM conversations c"
            " GROUP BY conversation ORDER BY max(c.id) DESC"
        )
        return [(row["conversation"], row["last"], row["first"] or "") for row in rows]

    def load(self, conversation: str, *, whole: bool = False) -> Conversation:
        """A conversation as it stands, empty where nothing was said in it; `whole` with the turns before a summary."""
        rows = self._store.read("SELECT * FROM conversations WHERE conversation = ? ORDER BY id", conversation)
        turns: dict[int, Turn] = {}
        drafts: dict[int, dict[str, object] | None] = {}
        descriptions: dict[int, dict[str, object] | None] = {}
        waiting: Waiting | None = None
        summary = ""
        for row in rows:
            role, content = row["role"], row["content"]
            newest = next(reversed(turns.values()), None)
            if role == _USER:
                turns[row["id"]] = Turn(row["id"], row["at"], content)
            elif role == _ASSISTANT and newest:
                turns[newest.number] = Turn(newest.number, newest.at, newest.prompt, content, newest.messages)
            elif role == _WAITING:
                entry = json.loads(content)
                waiting = Waiting(entry["turn"], tuple(entry["messages"]), entry["calls"])
            elif role == _MESSAGES:
                entry = json.loads(content)
                waiting = None
                if turn := turns.get(entry["turn"]):
                    turns[turn.number] = Turn(turn.number, turn.at, turn.prompt, turn.reply, tuple(entry["messages"]))
            elif role == _DRAFT:
                entry = self._store.places.from_json(content)
                drafts[entry["turn"]] = entry["plan"]
            elif role == _DESCRIPTION:
                entry = self._store.places.from_json(content)
                # Taken out first: what is written last is to stand last, whatever its turn.
                descriptions.pop(entry["turn"], None)
                descriptions[entry["turn"]] = entry["said"]
            elif role == _UNDO:
                for entries in (turns, drafts, descriptions):
                    entries.pop(int(content), None)
            elif role == _SUMMARY and not whole:
                summary, turns = content, {}
        # An empty one counts too: it takes the one before it back.
        draft, description = (next(reversed(entries.values()), None) for entries in (drafts, descriptions))
        newest_turn = next(reversed(turns), 0)
        waiting = waiting if waiting and waiting.turn == newest_turn else None
        return Conversation(conversation, tuple(turns.values()), summary, draft, description, waiting)

    def _text(self, document: dict[str, object]) -> str:
        """In the order of its fields, which is that of the file that a person edits."""
        return json.dumps(self._store.places.stored(document), ensure_ascii=False)

    def _write(self, conversation: str, role: str, content: str) -> int:
        row = {"conversation": conversation, "at": time.time(), "role": role, "content": content}
        return say(self._store, "conversations", row)
