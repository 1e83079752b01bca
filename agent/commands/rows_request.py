"""`tunesmith rows request`: the page that asks an assistant of the user's choice for rows."""

from __future__ import annotations

import argparse
import shlex
import sys

from tunesmith.agent.commands import render
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.settings import Settings
from tunesmith.agent.commands.teach import described_in, read_before
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.local_paths import is_folder
from tunesmith.tools.core.plain_file import write_private_text
from tunesmith.tools.core.yaml_file import read_yaml
from tunesmith.tools.data.behaviour import SPEC_FILE, is_complete, words_in
from tunesmith.tools.data.request_page import request_page

LEAST, MOST = 8, 200
"""Rows that a page asks for: an assistant writes about a hundred in one answer."""


def request(args: argparse.Namespace, settings: Settings, out: Output) -> int:
    """Write the page to a file, or to stdout as it is pasted."""
    if not LEAST <= args.rows <= MOST:
        raise BadInput(f"--rows takes {LEAST} to {MOST} rows a page, not {args.rows}; for more, ask for “more” there")
    path = described_in(args.file)
    words, stated = words_in(path)
    if not is_complete(words) and (folder := read_before(words, stated, settings.home)):
        path = folder  # with its examples as they were parted, and what was changed there since
        words, _ = words_in(path)
    document = read_yaml(path / SPEC_FILE if is_folder(path) else path, "behaviour", through_link=not is_folder(path))
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
