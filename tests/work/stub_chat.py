#!/usr/bin/env python3
"""Stands in for the vllm program where the property under test is what becomes of the answers to a suite.

Every chat is answered after STUB_DELAY_S with a text that its last message decides: half of them hold "yes". A message
that ends in "err" gets a 400. Each request is a line of the file named in STUB_REQUESTS. With STUB_NO_LORA=load every
adapter is refused, with STUB_NO_LORA=start the program ends when adapters are to be allowed, as vLLM does: the engine
tells the cause, then its parent that it failed.

As a judge it finds an answer good that begins with "yes", and the last of several the best. It gives no reply to a
criterion that ends in "mute", and none that can be read to one that ends in "mumble".
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOG = os.open(os.environ.get("STUB_REQUESTS", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
DELAY_S = float(os.environ.get("STUB_DELAY_S", "0"))
NO_LORA = os.environ.get("STUB_NO_LORA", "")
ADAPTERS: list[str] = []
ENGINE_FAILED = """\
(EngineCore pid=8) ERROR 11-20 12:00:00 [core.py:1510] EngineCore failed to start.
(EngineCore pid=8) ERROR 11-20 12:00:00 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=8) ERROR 11-20 12:00:00 [core.py:1510]   File "core.py", line 1484, in run_engine_core
(EngineCore pid=8) ERROR 11-20 12:00:00 [core.py:1510]     raise ValueError(told)
(EngineCore pid=8) ERROR 11-20 12:00:00 [core.py:1510] {cause}
(EngineCore pid=8) Process EngineCore:
(EngineCore pid=8) Traceback (most recent call last):
(EngineCore pid=8)   File "process.py", line 314, in _bootstrap
(EngineCore pid=8)     self.run()
(EngineCore pid=8) {cause}
(APIServer pid=7) Traceback (most recent call last):
(APIServer pid=7)   File "utils.py", line 1431, in wait_for_engine_startup
(APIServer pid=7)     raise RuntimeError("Engine core initialization failed. See root cause above.")
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}
"""


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        models = {"data": [{"id": name} for name in (option("--served-model-name"), *ADAPTERS)]}
        known = {"/v1/models": models, "/version": {"version": "0.0.stub"}}
        self.answer(200 if self.path in known else 404, known.get(self.path, {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/load_lora_adapter":
            if NO_LORA:
                self.answer(400, {"error": {"message": "TinyMoe does not support LoRA yet"}})
            else:
                ADAPTERS.append(body["lora_name"])
                self.answer(200, {})
            return
        os.write(LOG, (json.dumps(body) + "\n").encode())
        time.sleep(DELAY_S)
        asked = str(body["messages"][-1]["content"])
        if asked.endswith("err"):
            self.answer(400, {"error": {"message": "told to"}})
            return
        if option("--served-model-name").startswith("judge-"):
            self.judge(asked)
            return
        digest = hashlib.sha256(f"{asked}/{body.get('seed')}/{body['temperature'] and 'hot'}".encode()).hexdigest()
        text = f"{'yes' if digest[0] < '8' else 'no'} {digest[:8]}"
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": len(asked), "completion_tokens": len(text)}
        self.answer(200, {"choices": [choice], "usage": usage})

    def judge(self, asked: str) -> None:
        criterion = re.findall(r"<(?:rubric|criteria)>(.*?)</", asked)[-1]
        if criterion.endswith("mute"):
            self.answer(400, {"error": {"message": "no judge today"}})
            return
        good = '"yes' in asked.rpartition("<answer>")[2][:5]
        if "by a rubric" in asked:
            reply = json.dumps({"reason": "as it begins", "pass": good, "score": 0.9 if good else 0.1})
        elif "short steps" in asked:
            reply = json.dumps({"steps": ["read", "weigh", "say"]})
        elif "Rate how well" in asked:
            reply = json.dumps({"score": 9 if good else 1, "reason": "as it begins"})
        else:
            reply = str(len(re.findall(r"<answer index=", asked)) - 1)
        text = "well" if criterion.endswith("mumble") else reply
        self.answer(200, {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": {}})

    def answer(self, status: int, document: object) -> None:
        text = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256


if __name__ == "__main__":
    if NO_LORA == "start" and "--enable-lora" in sys.argv:
        raise SystemExit(ENGINE_FAILED.format(cause="ValueError: TinyMoe does not support LoRA yet."))
    Server((option("--host"), int(option("--port"))), Handler).serve_forever()
