"""The examination of answers: a real REPL on a real terminal, judged by what the user sees.

    python -m tests.driver.run_answers [HOME] [--out FILE] [--only ID …] [--no-model] [--show]

HOME needs two runs that evaluated something; it is copied. The facts are computed from its store at run time
(`facts_shown.py`), the questions are those of `answers.yaml` and `dialogues.yaml`. Every price is answered with no.
Right: each fact stands within the first 15 lines of an answer of at most 32, nothing false, nothing asked for that
was not ordered, nothing begun. Dead end: no prompt in time, the same words twice running, an internal error, raw JSON.
`--no-model` leaves out what needs a driver and gives it none.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.driver.exam_home import make_exam_home
from tests.driver.facts_shown import NOWHERE, Facts
from tests.fixtures import yaml_of
from tests.fixtures.terminal import Terminal
from tunesmith.agent.commands import settings

PROMPT = "tunesmith ❯"
NO = "no, just testing"
FIRST_LINES, PAGE_LINES = 15, 32
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x1b\][^\x07]*\x07|\r")
_QUESTION = re.compile(r"\?[^?\n]*[(\[][^()\[\]\n]*\b(?:yes|no)\b[^()\[\]\n]*[)\]]:?\s*$")
_LOOKS = ("· reads the ", "· asks the records")
"""How the lines begin that tell what a driver looks at."""
_FOLDER = Path(__file__).parent


@dataclass
class Shown:
    """What one line of the user came to."""

    text: str
    seconds: float
    asked: list[str] = field(default_factory=list)
    stuck: bool = False

    @property
    def lines(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.strip()]


@dataclass
class Verdict:
    """How an item was answered."""

    id: str
    group: str
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)
    dead_ends: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return not (self.wrong or self.false or self.dead_ends or self.unasked)


class Talk:
    """A REPL of its own in a home."""

    def __init__(self, home: Path, env: Mapping[str, str], limit_s: float) -> None:
        self.home, self.limit_s = home, limit_s
        self.terminal = Terminal((), {**os.environ, **env, "TUNESMITH_HOME": str(home)}, size=(60, 230))
        self.terminal.expect(PROMPT, timeout_s=60)

    def say(self, words: str, answer: str = NO) -> Shown:
        """Say a line; every question for a price on the way is answered."""
        self.terminal.at_prompt()
        place = len(self.terminal.raw)
        self.terminal.type(f"\x1b[200~{words}\x1b[201~" if "\n" in words else words)
        self._quiet(0.05)
        begun = time.monotonic()
        self.terminal.type("\r")
        asked: list[str] = []
        while True:
            self._quiet(0.1)
            text = _ESCAPES.sub("", self.terminal.raw[place:].decode(errors="replace")).rstrip(" \n\x08")
            taken = time.monotonic() - begun - 0.1
            prompted = text.endswith(PROMPT) and text.rfind(PROMPT) > text.rfind(f"{PROMPT} {words[:20]}")
            # A busy machine draws a line in pieces, and may take seconds before it works on the line.
            if prompted and self.terminal.reads_keys() and (_answer(text, words).strip() or taken > 5):
                return Shown(_answer(text, words), taken, asked)
            if _QUESTION.search(text) and self._still(0.7):
                asked.append(text.splitlines()[-1])
                self.terminal.line(answer)
                self._quiet(0.5)
            if taken > self.limit_s:
                return Shown(_answer(text, words), taken, asked, stuck=True)

    def _still(self, seconds: float) -> bool:
        """Whether nothing was shown for so long."""
        before = len(self.terminal.raw)
        time.sleep(seconds)
        return len(self.terminal.raw) == before

    def _quiet(self, seconds: float) -> None:
        while not self._still(seconds):
            pass

    def close(self) -> None:
        self.terminal.close()


def _answer(text: str, words: str) -> str:
    """What was shown between the line that was taken, however it was wrapped, and the next prompt."""
    wanted = "".join(words.split())
    taken = text.rfind(f"{PROMPT} {words[:20]}")
    body = text[taken + len(PROMPT) :] if taken >= 0 else text
    end = body.rfind(PROMPT)
    lines = (body[:end] if end >= 0 else body).replace("\x08", "").splitlines()
    echoed = ""
    while lines and len(echoed) < len(wanted):
        echoed += "".join(lines.pop(0).split())
    drawn_again = re.compile(f"^(?:{PROMPT} ?)+")
    return "\n".join(drawn_again.sub("", line).rstrip() for line in lines if not line.startswith(_LOOKS))


class Exam:
    """Items against one home."""

    def __init__(self, source: Path, env: Mapping[str, str], limit_s: float) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="answers-", dir=source.parent))
        _copy(source, self.home)
        self.facts, self._env, self._limit_s = Facts.of(self.home), env, limit_s
        self.talk = Talk(self.home, env, limit_s)
        self._steps = self._last_step()

    def item(self, item: Mapping[str, Any]) -> Verdict:
        """Hold an item and judge every turn of it."""
        verdict = Verdict(item["id"], item.get("group", "dialogue"))
        self.talk.say("/new")
        before = ""
        for turn in item.get("turns", [item]):
            shown = self.talk.say(self.facts.said(turn["say"]), turn.get("answer", NO))
            verdict.seconds.append(shown.seconds)
            verdict.shown += [f"> {turn['say']}", *shown.lines]
            if shown.stuck:
                verdict.dead_ends.append("no prompt")
                self.talk.close()
                self.talk = Talk(self.home, self._env, self._limit_s)
                break
            if before and shown.text == before:
                verdict.dead_ends.append("the same words twice running")
            before = shown.text
            self._judge(turn, shown, verdict)
        self._clean()
        return verdict

    def _judge(self, turn: Mapping[str, Any], shown: Shown, verdict: Verdict) -> None:
        first = "\n".join(shown.lines[: turn.get("lines", FIRST_LINES)])
        for fact in turn.get("must", []):
            if not self.facts.shown(fact, first):
                verdict.wrong.append(f"not shown: {fact}")
        for pattern in turn.get("not", []):
            if re.search(self.facts.said(pattern), shown.text, re.IGNORECASE):
                verdict.false.append(pattern)
        verdict.dead_ends += [f"shown: {one}" for one in NOWHERE if re.search(one, shown.text)]
        if not shown.lines:
            verdict.dead_ends.append("nothing was said")
        asks = turn.get("asks", "")
        if len(shown.lines) > turn.get("page", PAGE_LINES) and not asks:
            verdict.wrong.append(f"{len(shown.lines)} lines")
        begun = self._begun()
        if asks and not shown.asked:
            verdict.wrong.append(f"asked for nothing, not for {asks}")
        if asks and begun[:1] != [asks]:
            verdict.wrong.append(f"priced {begun}, not {asks}")
        if shown.asked and not asks:
            verdict.wrong.append(f"asked to begin {begun}")
        for name, value in turn.get("args", {}).items():
            if (got := self._request().get(name)) != value:
                verdict.wrong.append(f"{name} is {got}, not {value}")
        verdict.unasked += [row[0] for row in self._new("stage", "started_at IS NOT NULL AND stage <> 'inspect'")]
        for kept in turn.get("kept", []):
            if not self._kept(kept):
                verdict.wrong.append(f"not kept: {kept}")
        for kept in turn.get("not_kept", []):
            if self._kept(kept):
                verdict.wrong.append(f"kept: {kept}")

    def _kept(self, words: str) -> bool:
        draft = self.home / "behaviours" / "draft.json"
        texts = list(_texts(json.loads(draft.read_text()))) if draft.exists() else []
        return any(words in text for text in texts)

    def _begun(self) -> list[str]:
        return [row[0] for row in self._new("stage", "stage <> 'inspect'")]

    def _request(self) -> dict[str, Any]:
        rows = self._new("request", "stage <> 'inspect'")
        return dict(json.loads(rows[-1][0])) if rows else {}

    def _new(self, what: str, where: str) -> list[tuple[Any, ...]]:
        return self.facts.rows(f"SELECT {what} FROM steps WHERE rowid > {self._steps} AND {where} ORDER BY rowid")

    def _last_step(self) -> int:
        return int(self.facts.rows("SELECT max(rowid) FROM steps")[0][0] or 0)

    def _clean(self) -> None:
        """Take the item's proposals and its description out again."""
        with sqlite3.connect(self.home / "tunesmith.db") as db:
            db.execute("PRAGMA foreign_keys = OFF")
            new = f"(SELECT step FROM steps WHERE rowid > {self._steps})"
            db.execute(f"DELETE FROM approvals WHERE step IN {new}")
            db.execute(f"DELETE FROM events WHERE step IN {new}")
            db.execute(f"DELETE FROM steps WHERE rowid > {self._steps}")
        (self.home / "behaviours" / "draft.json").unlink(missing_ok=True)

    def close(self) -> None:
        """Leave the REPL and remove the copied home."""
        self.talk.close()
        shutil.rmtree(self.home, ignore_errors=True)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(inner)


def _copy(source: Path, target: Path) -> None:
    """The home with its database copied and its large folders linked."""
    with sqlite3.connect(source / "tunesmith.db") as old, sqlite3.connect(target / "tunesmith.db") as new:
        old.backup(new)
    for name in ("runs", "models"):
        if (source / name).exists():
            (target / name).symlink_to((source / name).resolve())
    if (source / "settings.toml").exists():
        shutil.copy2(source / "settings.toml", target)


def load(*, no_model: bool) -> list[dict[str, Any]]:
    """All items; without those that only a driver can answer, or that need the real files of a run, where asked."""
    items: list[dict[str, Any]] = []
    for name in ("answers.yaml", "dialogues.yaml"):
        items += yaml_of((_FOLDER / name).read_text())
    return [item for item in items if not (no_model and item.get("needs") in ("driver", "files"))]


def figures(verdicts: list[Verdict]) -> dict[str, Any]:
    """The totals."""
    seconds = [one for verdict in verdicts for one in verdict.seconds]
    groups: dict[str, list[bool]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.group, []).append(verdict.right)
    return {
        "items": len(verdicts),
        "right": sum(verdict.right for verdict in verdicts),
        "turns": len(seconds),
        "false": sum(len(verdict.false) for verdict in verdicts),
        "dead_ends": sum(len(verdict.dead_ends) for verdict in verdicts),
        "started_unasked": sum(len(verdict.unasked) for verdict in verdicts),
        "median_s": round(statistics.median(seconds), 2) if seconds else None,
        "slowest_s": round(max(seconds), 1) if seconds else None,
        "groups": {name: f"{sum(held)} of {len(held)}" for name, held in groups.items()},
    }


def main() -> int:
    """Examine, print, and say by the exit code whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path, nargs="?", help="a home with finished runs; else a small one that is made")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--no-model", action="store_true")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--limit", type=float, default=120.0)
    args = parser.parse_args()
    env = {"TUNESMITH_DRIVER": "http://127.0.0.1:9/v1", "TUNESMITH_DRIVER_NAME": "none"} if args.no_model else {}
    items = load(no_model=args.no_model)
    items = [item for item in items if not args.only or item["id"] in args.only or item.get("group") in args.only]
    made = tempfile.TemporaryDirectory(prefix="answers-")
    home = args.home.resolve() if args.home else make_exam_home(Path(made.name) / "home")
    if not args.home:
        items = [item for item in items if item.get("needs") != "files"]
        if not args.no_model and (models := settings.load().home / "models").exists():
            (home / "models").symlink_to(models)
    exam, verdicts = Exam(home, env, args.limit), []
    try:
        for item in items:
            verdicts.append(verdict := exam.item(item))
            print(f"{'ok ' if verdict.right else 'NO '} {verdict.id:24} {sum(verdict.seconds):6.1f} s", flush=True)
            for problem in (*verdict.wrong, *(f"FALSE {one}" for one in verdict.false), *verdict.dead_ends,
                            *(f"UNASKED {one}" for one in verdict.unasked)):  # fmt: skip
                print(f"      {problem}")
            if args.show and not verdict.right:
                print("\n".join(f"        | {line[:200]}" for line in verdict.shown[-30:]))
    finally:
        exam.close()
    found = figures(verdicts)
    print(json.dumps(found, indent=1, ensure_ascii=False))
    if args.out:
        args.out.write_text(
            json.dumps({"figures": found, "items": [vars(one) for one in verdicts]}, ensure_ascii=False)
        )
    good = found["right"] >= 0.9 * found["items"] and found["false"] <= 0.01 * found["turns"]
    return 0 if good and not found["dead_ends"] and not found["started_unasked"] else 1


if __name__ == "__main__":
    sys.exit(main())
