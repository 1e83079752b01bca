#!/usr/bin/env python3
"""Stands in for the vllm program where the property under test is about processes, not about a model.

Speaks the few endpoints that tunesmith waits on, guards `/v1` with the key from its environment as vLLM does, and
keeps a child beside it, as vLLM keeps its engine. `served-model-name` steers it: `dies` ends at once, `large` holds
300 MB. In a conversation it calls the tool in its model folder's `call.json`, if there is one, and then says a word;
a choice of a tool falls on none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ADAPTERS: list[str] = []


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/version":
            self.answer(200, {"version": "0.0.stub"})
        elif self.path == "/v1/models" and self.allowed():
            self.answer(200, {"data": [{"id": name} for name in (option("--served-model-name"), *ADAPTERS)]})
        elif self.path == "/health":
            self.answer(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/load_lora_adapter" and self.allowed():
            if not Path(body["lora_path"]).is_dir():
                self.answer(400, {"error": {"message": f"No adapter found for {body['lora_path']}"}})
                return
            ADAPTERS.append(body["lora_name"])
            self.answer(200, {})
        elif self.path == "/tokenize":
            self.answer(200, {"tokens": [len(message["content"]) for message in body["messages"]]})

        elif self.path == "/v1/chat/completions" and self.allowed() and not body.get("stream"):
            message = {"role": "assistant", "content": '{"tool": "chat"}'}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.answer(
                200, {"id": "c", "object": "chat.completion", "created": 1, "model": "stub", "choices": [choice]}
            )
        elif self.path == "/v1/chat/completions" and self.allowed():
            self.talk(body["messages"][-1]["role"])

    def talk(self, last: str) -> None:
        call = Path(sys.argv[2]) / "call.json"
        delta: dict[str, object] = {"role": "assistant", "content": "It is done."}
        if call.is_file() and last != "tool":
            named = json.loads(call.read_text())
            function = {"name": named["name"], "arguments": json.dumps(named["arguments"])}
            called = {"index": 0, "id": "c1", "type": "function", "function": function}
            delta = {"role": "assistant", "tool_calls": [called]}
        end = "tool_calls" if "tool_calls" in delta else "stop"
        chunks = [{"index": 0, "delta": delta, "finish_reason": None}, {"index": 0, "delta": {}, "finish_reason": end}]
        shared = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "stub"}
        lines = [f"data: {json.dumps({**shared, 'choices': [chunk]})}\n\n" for chunk in chunks]
        text = "".join([*lines, "data: [DONE]\n\n"]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {os.environ['VLLM_API_KEY']}":
            return True
        self.answer(401, {"error": "Unauthorized"})
        return False

    def answer(self, status: int, document: object) -> None:
        text = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        pass


def main() -> None:
    name = option("--served-model-name")
    if name == "dies":
        print("INFO starting\nValueError: the model is too large: 31.2 GiB, 22.0 GiB free\nINFO bye", flush=True)
        raise SystemExit(1)
    held = b"x" * 300_000_000 if name == "large" else b""  # noqa: F841
    engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"engine {engine.pid}", flush=True)
    ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
