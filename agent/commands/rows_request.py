"""`tunesmith rows request`: the page that asks an assistant of the user's choice for rows.

A person pastes it there, and `teach --rows` reads what comes back: right rows are what a small writer does not write
(docs/measurements.md). The page holds what the user's file says, the examples that are no blind cases and the near
misses that are no cases. Nothing is sent by the program.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys

import yaml

from tunesmith.agent.commands import render
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.commands.teach import described_in, read_before
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.plain_file import write_private_text
from tunesmith.tools.data.behaviour import document_in, is_complete, words_in
from tunesmith.tools.data.description import Example, parted, turns_of
from tunesmith.tools.data.draw import axes
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.spec_suites import asked_near_misses
from tunesmith.tools.data.writer_requests import prompt_text

LEAST, MOST = 8, 200
"""Rows that a page asks for: an assistant writes about a hundred in one answer."""
_SAID = (
    "say", "when", "what", "never", "system", "labels", "fields", "attributes", "template", "answer", "language",
    "tools", "near_misses",
)  # fmt: skip
"""Of a user's file, what an assistant is told; the rest is the program's own."""
ALIKE_SHARE = 4
"""One in so many rows is a look-alike, as in the rows that were measured."""


def request(args: argparse.Namespace, settings: Settings, out: Output) -> int:
    """Write the page to a file, or to stdout as it is pasted."""
    if not LEAST <= args.rows <= MOST:
        raise BadInput(f"--rows takes {LEAST} to {MOST} rows a page, not {args.rows}; for more, ask for “more” there")
    path = described_in(args.file)
    words, stated = words_in(path)
    if not is_complete(words) and (folder := read_before(words, stated, settings.home)):
        path = folder  # with its examples as they were parted, and what was changed there since
        words, _ = words_in(path)
    document, _ = document_in(path)
    assert isinstance(document, dict)  # words were read from it
    page, examples = request_page(document, words, args.rows)
    out.say(
        f"the page holds your description and {examples} of your examples: whoever you give it to reads "
        "them; tunesmith sends nothing"
    )
    out.say(f"keep the lines that come back in a file: tunesmith teach {shlex.quote(args.file)} --rows FILE.jsonl")
    value = {"rows": args.rows, "examples": examples}
    if args.page:
        written = write_private_text(args.page, page + "\n", force=args.force)
        out.document({"file": str(written), **value}, render.plain(f"the page is in {written}"))
    elif out.wants_json:
        out.document({"page": page, **value}, render.plain(""))
    else:
        sys.stdout.write(page + "\n")  # as it is: a line that is folded is no JSON any more
    return 0


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
