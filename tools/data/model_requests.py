"""Requests to a model: how they are written, and their answers, kept line by line.

A killed step replays the answers that it has and asks the rest. What is made of them is made by code that is a pure
function of them, so a resumed step comes to the same rows without asking anything twice. Questions about a user's words
are pages of worked examples, each small and about one thing, as a model of a billion parameters answers them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any, Protocol

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.json_values import as_record
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.resumable_log import ResumableLog, read_log
from tunesmith.tools.core.stage import Request
from tunesmith.tools.core.strict_json import json_value
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatRequest, ChatResponse
from tunesmith.tools.serving.requests import Tally, ask

_LOGGED = ("id", "text", "finish_reason", "prompt_tokens", "completion_tokens", "steps")


def system(content: str) -> dict[str, str]:
    """A system message."""
    return {"role": "system", "content": content}


def user(content: str) -> dict[str, str]:
    """A message of the user."""
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    """An answer, or the beginning of one that a model goes on with."""
    return {"role": "assistant", "content": content}


def storable(text: str) -> str:
    """A model's text with a question mark for half a character: JSON can hold one, and no file or table does."""
    return text.encode(errors="replace").decode()


class Asker(Protocol):
    """Who answers requests."""

    model: str

    def ask(
        self, requests: Sequence[ChatRequest], note: str, on_answer: Callable[[ChatResponse], None] | None = None
    ) -> dict[str, ChatResponse]:
        """The answers by the ids of their requests; one that was not to be had is left out."""


class AnswerLog:
    """The answers of one server in one step, in the file `name` of the step's folder."""

    def __init__(self, job: Job[Request], server: servers.Server, tally: Tally, name: str, *, concurrency: int) -> None:
        self.job, self.server, self.tally, self.concurrency = job, server, tally, concurrency
        self.model = server.model
        self.path = job.dir / name
        self.answers = self._read()

    def ask(
        self, requests: Sequence[ChatRequest], note: str, on_answer: Callable[[ChatResponse], None] | None = None
    ) -> dict[str, ChatResponse]:
        """As `Asker.ask`; what was answered before is not asked again. Raises StepFailed for too many errors."""
        ids = [request.id for request in requests]
        if len(set(ids)) < len(ids):
            raise StepFailed(f"two requests of one round are called {next(i for i in ids if ids.count(i) > 1)}")
        if on_answer:
            for identity in ids:
                if identity in self.answers:
                    on_answer(self.answers[identity])
        pending = [request for request in requests if request.id not in self.answers]
        done = len(requests) - len(pending)
        with ResumableLog(self.path) as log:

            def keep(response: ChatResponse) -> None:
                nonlocal done
                response = replace(response, text=storable(response.text))
                values = asdict(response)
                log.add({name: values[name] for name in _LOGGED})
                self.answers[response.id] = response
                servers.renew(self.server)
                done += 1
                self.job.progress(done, len(requests), note)
                if on_answer:
                    on_answer(response)

            if pending:
                ask(self.server, pending, keep, self.tally, concurrency=self.concurrency)
        return {identity: self.answers[identity] for identity in ids if identity in self.answers}

    def _read(self) -> dict[str, ChatResponse]:
        answers = {}
        for entry in read_log(self.path):
            response = as_record(ChatResponse, {name: entry[name] for name in _LOGGED if name in entry})
            answers[response.id] = response
        return answers


Ask = Callable[[Sequence[ChatRequest]], Mapping[str, ChatResponse]]
"""Puts requests to a model: its answers by the requests' ids; what was not answered is left out."""
_WORD_TOKENS, _ANSWER_TOKENS = 4, 500
"""Of an answer of a word, and of one that is held to a schema."""
TEXT: Mapping[str, object] = {"type": "string", "maxLength": 300}
"""A server that is held to it ends a text there: a small model may never end it."""
NUMBER: Mapping[str, object] = {"type": ["integer", "null"]}


def object_of(**properties: Mapping[str, object]) -> dict[str, object]:
    """The schema of an object with just these keys."""
    return {
        "type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


def list_of(item: Mapping[str, object], most: int) -> dict[str, object]:
    """The schema of an object with a list under `items`, as servers hold answers to objects alone."""
    return object_of(items={"type": "array", "items": dict(item), "maxItems": most})


@cache
def _page(name: str) -> tuple[dict[str, str], ...]:
    """The turns of a page: what is asked for, then questions (`>`) and their answers (`=`)."""
    text = (files("tunesmith.prompts") / "read-words.md").read_text(encoding="utf-8")
    page = next(body for body in f"\n{text}".split("\n# ") if body.partition("\n")[0].strip() == name)
    lines = [line for line in page.split("\n")[1:] if line.strip()]
    turns = []
    for mark, group in groupby(lines, lambda line: line[:2]):
        role = {"> ": "user", "= ": "assistant"}.get(mark, "system")
        turns.append({"role": role, "content": "\n".join(line[0 if role == "system" else 2 :] for line in group)})
    return tuple(turns)


def question(
    page: str, lines: Sequence[str], model: str, schema: Mapping[str, object] | None = None, *, identity: str = "",
    temperature: float = 0.0, seed: int = 0, tokens: int = _WORD_TOKENS,
) -> ChatRequest:  # fmt: skip
    """The question of a page about these lines; without a schema a few words are asked for."""
    messages = [*_page(page), user("\n".join(lines))]
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema or {})}}
    extra: Mapping[str, object] = {"response_format": form} if schema else {}
    tokens = _ANSWER_TOKENS if schema else tokens
    return ChatRequest(identity or page, model, messages, tokens, temperature, seed=seed, extra=extra)


def object_in(answers: Mapping[str, ChatResponse], identity: str) -> dict[str, Any]:
    """What was answered, as an object; empty where nothing was, or no object."""
    value = json_value(answers[identity].text) if identity in answers else None
    return value if isinstance(value, dict) else {}


def items_in(answers: Mapping[str, ChatResponse], identity: str) -> list[dict[str, Any]]:
    """The list that was answered, its objects alone; empty where none was."""
    items = object_in(answers, identity).get("items")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def word_in(answers: Mapping[str, ChatResponse], identity: str) -> str:
    """The words that were answered, on their first line; empty where none were."""
    return answers[identity].text.strip().split("\n")[0].strip(" .*`") if identity in answers else ""


def data(text: str) -> str:
    """A text as a JSON string, in which nothing can pass for a part of the question."""
    return json.dumps(text, ensure_ascii=False)
