#!/usr/bin/env python3
"""Stands in for the vllm program where a served model writes the rows of a described behaviour.

It names subjects, writes a message about the one it is asked for, and answers a message with three points. Of the
answers a quarter has two points at first and three once it is told what went wrong; messages about salt never get
more than two, and a message about mint tea it does not take for one of the kind (with STUB_ALWAYS_YES, any is). Each
request is a line of the file named in STUB_REQUESTS; from the number in STUB_ANSWERS on, requests are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REQUESTS = Path(os.environ["STUB_REQUESTS"])
ANSWERS = Path(os.environ["STUB_ANSWERS"])
FOODS = (
    "leek soup", "rye bread", "roast duck", "pea risotto", "lamb stew", "plum cake", "salt", "fried rice", "crab toast",
    "beet salad", "corn chowder", "apple pie", "fish curry", "mint tea", "goat cheese", "onion rings", "veal schnitzel",
)  # fmt: skip
MANNERS = (
    "{} for guests on Sunday evening?", "{} burnt again, why does it always happen", "{} as our grandmothers made it?",
    "{} in ten minutes, fast please", "{} unless it is sweet. Any idea how my daughter likes it?",
    "{} for forty people in a tiny kitchen", "{} stood outside overnight, is it dangerous to reheat?",
)  # fmt: skip


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def reply(messages: list[dict[str, Any]]) -> str:
    asked = messages[-1]["content"]
    number = int(hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:8], 16)
    if messages[-1]["role"] == "assistant" and "different subjects" in messages[0]["content"]:
        return "\n".join(f" {food}\n{place}." for place, food in enumerate(FOODS, 2))
    if messages[-1]["role"] == "assistant":
        about = re.search(r"The last one is about: (.+)\.", messages[0]["content"])
        return f" {MANNERS[number % len(MANNERS)].format(about[1] if about else 'it')} Number {number % 97}."
    if "Answer yes or no" in asked:
        message = asked.partition("The message: ")[2].lower()
        known = ("",) if os.environ.get("STUB_ALWAYS_YES") else (*FOODS, "egg", "bread", "basil")
        return "yes" if any(food in message for food in known) and "mint tea" not in message else "no"
    told = "Take care" in messages[0]["content"]
    salt = re.search(r"\bsalt\b", asked)
    points = ["Read the question.", f"Think of {hashlib.sha256(asked.encode()).hexdigest()}.", "Begin."]
    few = salt or (not told and int(hashlib.sha256(asked.encode()).hexdigest()[:2], 16) < 64)
    return "\n".join(f"- {point}" for point in points[: 2 if few else 3])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answered = 0

    def do_GET(self) -> None:
        models = {"data": [{"id": option("--served-model-name")}]}
        self.answer(200, models if self.path == "/v1/models" else {"version": "0.0.stub"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with REQUESTS.open("a") as file:
            file.write(json.dumps(body) + "\n")
        Handler.answered += 1
        if Handler.answered > int(ANSWERS.read_text()):
            self.answer(400, {"error": {"message": "no more answers"}})
            return
        choice = {"message": {"content": reply(body["messages"])}, "finish_reason": "stop"}
        self.answer(200, {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9}})

    def answer(self, status: int, document: object) -> None:
        text = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()
