#!/usr/bin/env python3
"""Stands in for the vllm program where the property under test is what becomes of a writer's answers.

Answers every chat with the same sentence. Each request is a line of the file named in STUB_REQUESTS; from the
number in STUB_ANSWERS on, requests are refused.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REQUESTS = Path(os.environ["STUB_REQUESTS"])
ANSWERS = Path(os.environ["STUB_ANSWERS"])


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


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
        choice = {"message": {"content": " I hope that somebody has an eye on it."}, "finish_reason": "stop"}
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
