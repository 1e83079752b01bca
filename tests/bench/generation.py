"""Ours and distilabel's default on the same vLLM server and prompts: rows that are kept, in a minute.

TUNESMITH_BENCH_MODEL names a model folder, TUNESMITH_DISTILABEL the python of an environment with `distilabel[openai]`;
skipped without either. Both sides ask for 240 messages of at most 64 tokens, each in a process of its own, from its
start to its end; a row is kept where it has a text that no row before it has. Three runs in turn, the middle one
counts. Ours keeps every answer on disk as it comes, as `generate` does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

ROWS, TOKENS, RUNS, BOUND = 240, 64, 3, 1.3
TOPICS = ("a parcel", "a bill", "a broken lamp", "a password", "a wrong size", "a late train", "a refund", "a lost key")
MOODS = ("short and angry", "polite", "confused", "in a hurry", "long-winded", "friendly")
THEIRS = """
import json, sys
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
url, key, model, tokens, prompts, out = sys.argv[1:]
with Pipeline(name="bench") as pipeline:
    load = LoadDataFromDicts(data=[{"instruction": p} for p in json.load(open(prompts))])
    llm = OpenAILLM(model=model, base_url=url + "/v1", api_key=key, generation_kwargs={"max_new_tokens": int(tokens)})
    load >> TextGeneration(llm=llm)
if __name__ == "__main__":
    rows = pipeline.run(use_cache=False)["default"]["train"]
    json.dump(list(rows["generation"]), open(out, "w"))
"""


class Rate(NamedTuple):
    """Rows that were kept, and the seconds of the whole process."""

    kept: int
    seconds: float

    @property
    def a_minute(self) -> float:
        """Kept rows a minute."""
        return 60 * self.kept / self.seconds


def main() -> int:
    """Print every run and the ratio of the medians; 1 where it misses."""
    from tunesmith.tools.machine.vllm_program import find_vllm
    from tunesmith.tools.serving import servers
    from tunesmith.tools.serving.spec import ServerSpec

    model, rival, vllm = (os.environ.get(n) for n in ("TUNESMITH_BENCH_MODEL", "TUNESMITH_DISTILABEL", "VLLM"))
    vllm = vllm or find_vllm(None)
    if not (model and rival and vllm):
        print("skipped: needs TUNESMITH_BENCH_MODEL, TUNESMITH_DISTILABEL and a vLLM")
        return 0
    rates: dict[str, list[Rate]] = {"ours": [], "distilabel": []}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        server = servers.start(
            home, ServerSpec(model_dir=model, served_name="bench"), vllm=vllm, log_path=home / "vllm.log", owner="bench"
        )
        try:
            command = [sys.executable, __file__, str(home), str(server.record)]
            _timed(home, "warm", command, prompts=_prompts("warm")[:8])
            (home / "theirs.py").write_text(THEIRS)
            for turn in range(RUNS):
                rates["ours"].append(_timed(home, f"ours {turn}", command))
                servers.renew(server)
                asked = [rival, str(home / "theirs.py"), server.url, server.key, server.model, str(TOKENS)]
                rates["distilabel"].append(_timed(home, f"distilabel {turn}", asked))
                servers.renew(server)
        finally:
            servers.stop(server)
    for name, of in rates.items():
        shown = ", ".join(f"{rate.kept} rows in {rate.seconds:.1f} s" for rate in of)
        print(f"{name:10} {median(rate.a_minute for rate in of):7.1f} rows a minute ({shown})")
    ratio = median(r.a_minute for r in rates["ours"]) / median(r.a_minute for r in rates["distilabel"])
    print(f"{'ok  ' if ratio >= BOUND else 'MISS'} {ratio:.2f} × distilabel's default (at least {BOUND})")
    return 0 if ratio >= BOUND else 1


def _prompts(side: str) -> list[str]:
    """The same for every side, but for a word at the beginning, so that none finds the server's cache warm."""
    return [
        f"({side}) Write message {n} of a customer about {TOPICS[n % len(TOPICS)]}. It is {MOODS[n % len(MOODS)]}."
        for n in range(ROWS)
    ]


def _timed(home: Path, side: str, command: list[str], prompts: list[str] | None = None) -> Rate:
    asked, written = home / f"{side}.prompts.json", home / f"{side}.texts.json"
    asked.write_text(json.dumps(prompts or _prompts(side)))
    started = time.perf_counter()
    done = subprocess.run([*command, str(asked), str(written)], cwd=home, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{side} ended with {done.returncode}: {done.stderr[-2000:]}")
    return Rate(len({text.strip() for text in json.loads(written.read_text()) if text and text.strip()}), seconds)


def ours(home: Path, record: Path, prompts: Path, out: Path) -> None:
    """What `generate` does with its requests: all at once, each answer written down as it comes."""
    from tests.bench._harness import new_job
    from tunesmith.tools.serving import servers
    from tunesmith.tools.serving.client import ChatRequest
    from tunesmith.tools.serving.requests import AnswerLog, Tally

    server = servers.read(record)
    assert server, f"{record} is no record of a server"
    job = new_job(home / out.stem.replace(" ", "-"))
    log = AnswerLog(job, server, Tally(), "writer.jsonl", concurrency=128)
    requests = [
        ChatRequest(f"r{n}", server.model, [{"role": "user", "content": text}], TOKENS, 1.0)
        for n, text in enumerate(json.loads(prompts.read_text()))
    ]
    out.write_text(json.dumps([answer.text for answer in log.ask(requests, "writing").values()]))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        ours(*map(Path, sys.argv[1:]))
    else:
        raise SystemExit(main())
