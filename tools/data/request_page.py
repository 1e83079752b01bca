"""A page that asks an assistant elsewhere for rows: a person pastes it, and `teach --rows` reads what comes back.

Right rows are what a small writer does not write (docs/measurements.md). The page holds what the user's file says and
the examples that everybody may see: blind ones are not on it, and nothing is sent by the program.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import yaml

from tunesmith.tools.data.behaviour import is_complete
from tunesmith.tools.data.description import Example, parted, turns_of
from tunesmith.tools.data.draw import axes
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.writer_requests import prompt_text

_SAID = (
    "say", "when", "what", "never", "system", "labels", "fields", "attributes", "template", "answer", "language",
    "tools", "near_misses",
)  # fmt: skip
"""Of a user's file, what an assistant is told; the rest is the program's own."""
ALIKE_SHARE = 4
"""One in so many rows is a look-alike, as in the rows that were measured."""


def request_page(document: Mapping[str, object], words: Spec, rows: int) -> tuple[str, int]:
    """The page for `rows` rows, and how many of the user's examples stand on it.

    document: the user's file as it was read; words: what it says. Examples are parted as `teach` parts them.
    """
    seen = words.examples if is_complete(words) else parted(words.examples)[0]
    said = {name: document[name] for name in _SAID if document.get(name)}
    alike = max(1, rows // ALIKE_SHARE)
    page = prompt_text(
        "request-rows",
        words=yaml.safe_dump(said, allow_unicode=True, sort_keys=False, width=100).strip(),
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
    except ValueError:
        called = None
    if isinstance(called, dict) and called.keys() == {"name", "arguments"}:
        function = {"name": called["name"], "arguments": json.dumps(called["arguments"], ensure_ascii=False)}
        return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    return {"role": "assistant", "content": example.answer}
