"""A page that asks an assistant elsewhere for rows: a person pastes it, and `teach --rows` reads what comes back.

Right rows are what a small writer does not write (docs/measurements.md). The page holds what the user's file says,
the examples that are no blind cases and the near misses that are no cases. Nothing is sent by the program.
"""

from __future__ import annotations

import json

import yaml

from tunesmith.tools.data.description import Example, parted, turns_of
from tunesmith.tools.data.draw import axes
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.spec_suites import asked_near_misses
from tunesmith.tools.data.writer_requests import prompt_text

_SAID = (
    "say", "when", "what", "never", "system", "labels", "fields", "attributes", "template", "answer", "language",
    "tools", "near_misses",
)  # fmt: skip
"""Of a user's file, what an assistant is told; the rest is the program's own."""
ALIKE_SHARE = 4
"""One in so many rows is a look-alike, as in the rows that were measured."""


def request_page(document: dict[str, object], words: Spec, rows: int) -> tuple[str, int]:
    """The page for `rows` rows, and how many of the user's examples stand on it.

    document: the user's file as it was read; words: what it says. Examples are parted as `teach` parts them, and near
    misses that are cases are left out.
    """
    seen = words.examples if words.blind_sha256 else parted(words.examples)[0]
    asked = asked_near_misses(words)
    near = {"near_misses": [text for text in words.near_misses if text not in asked]}
    description = {name: value for name in _SAID if (value := (document | near).get(name))}
    alike = max(1, rows // ALIKE_SHARE)
    page = prompt_text(
        "request-rows",
        words=yaml.safe_dump(description, allow_unicode=True, sort_keys=False, width=100).strip(),
        examples="\n".join(json.dumps(record_of(example), ensure_ascii=False) for example in seen),
        rows=rows,
        own=rows - alike,
        alike=alike,
        styles="; ".join(", ".join(dict.fromkeys(filter(None, dealt))) for dealt in axes().values()),
    )
    return page, len(seen)


def record_of(example: Example) -> dict[str, object]:
    """An example as a record that `rows import` reads: its message and answer, or a conversation in OpenAI's form."""
    if not (example.system or example.conversation or example.tools):
        return {"prompt": example.prompt, "answer": example.answer}
    asked = turns_of(example.prompt) if example.conversation else [{"role": "user", "content": example.prompt}]
    system = [{"role": "system", "content": example.system}] if example.system else []
    tools = {"tools": list(example.tools)} if example.tools else {}
    return {"messages": [*system, *asked, _answer(example)], **tools}


def _answer(example: Example) -> dict[str, object]:
    """The last message: a call where tools are offered and the answer is one."""
    try:
        called = json.loads(example.answer) if example.tools else None
    except ValueError:  # words, and no call
        called = None
    if isinstance(called, dict) and called.keys() == {"name", "arguments"}:
        function = {"name": called["name"], "arguments": json.dumps(called["arguments"], ensure_ascii=False)}
        return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    return {"role": "assistant", "content": example.answer}
