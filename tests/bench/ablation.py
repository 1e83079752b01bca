"""What two parts of a training bring: rows that say more, and steps that stay near the base; each taken out in turn.

TUNESMITH_ABLATION names a folder for the work (11 GiB; skipped without it). Three behaviours of `tests/heldout`, whose
cases somebody wrote who had read the README only, are taught to the 0.5B four times each, by the product's commands:
with all of it, without what its rows have more than plain ones, without what holds its steps, and with neither. Rows
are written once for each behaviour, base and either way, and trained on both ways. `--seeds` trains the 135M too, with
three seeds on its rows.

"Without the rows' part" is this tree with the lines of `PLAIN_ROWS` taken out, in a copy of its own: no styles, nothing
read back or relabelled, no lists of one meaning, near misses from templates, and the user's examples only shown.
"Without the steps' part" are the flags of `PLAIN_STEPS`.

Killed anywhere, it goes on where it was: a step that is done is in the store, figures in `ablation.jsonl` beside the
cases, in the repository. A figure is of one training, so a difference of a few cases of 40 is chance; `--table` prints
all with the exact paired test.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.mutants.run import Copy  # noqa: E402
from tunesmith.tools.core.stats import mcnemar_exact  # noqa: E402
from tunesmith.tools.machine.vllm_program import find_vllm  # noqa: E402

HELD_OUT = ROOT / "tests" / "heldout"
RESULTS = HELD_OUT / "ablation.jsonl"
BEHAVIOURS = ("hausmeldung", "loan-desk", "club-line")
ROWS, NEAR_MISSES, ORDINARY = 100, 24, 40
BASE, TINY, WRITER = "bundled-0.5b", "bundled", "bundled-1.5b"
_AGREED = ("--json", "--yes", "--max-hours", "9")
_OUTCOMES = (0, 4)
"""Exit codes that leave figures: done, and a gate that refused."""
SEED, SEEDS = 17, (17, 18, 19)
PLAIN_STEPS = {
    "learning-rate": "8e-4", "batch-size": "8", "rehearsal-weight": "1", "value-weight": "1", "max-kl": "0",
    "patience": "0", "save-steps": "100000",
}  # fmt: skip
PLAIN_ROWS = (
    ("tools/data/draw.py", 'return "; ".join(filter(None, drawn))', 'return ""'),
    ("tools/data/synthesis.py", "stated = as_stated(self.spec, drawn, message)", "stated = drawn"),
    ("tools/data/synthesis.py", "        readable = {n:", "        return dict(written)\n        readable = {n:"),
    ("tools/data/synthesis.py", "for one in good]\n            note", "for one in good[:0]]\n            note"),
    ("tools/data/generate_job.py", "Listed if led else Synthesis", "Synthesis"),
    ("tools/data/generate_job.py", "if self.spec.blind_sha256 else ()", "if False else ()"),
    ("tools/data/augmentation.py", "FORMED_SHARE = 0.2", "FORMED_SHARE = 1.0"),
)  # fmt: skip
"""File, text that stands in it once, and what stands there instead."""


class Variant(NamedTuple):
    """A training: of which behaviour and base, with which parts."""

    behaviour: str
    rows: str
    steps: str
    base: str = BASE
    seed: int = SEED


def main() -> int:
    """Do what is not done yet, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", action="store_true", help="the 135M with three seeds too")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--behaviour", choices=BEHAVIOURS, action="append", help="only these")
    asked = parser.parse_args()
    work = os.environ.get("TUNESMITH_ABLATION")
    if not (work or asked.table):
        print("skipped: needs TUNESMITH_ABLATION, a folder with 11 GiB")
        return 0
    if work and not asked.table:
        for behaviour in asked.behaviour or BEHAVIOURS:
            Ablation(Path(work).resolve(), behaviour).carry_out(seeds=asked.seeds)
    print("\n".join(table([json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else [])))
    return 0


class Ablation:
    """The trainings of one behaviour, in a home of all of them."""

    def __init__(self, work: Path, behaviour: str) -> None:
        self.work, self.behaviour, self.home = work, behaviour, work / "home"
        work.mkdir(parents=True, exist_ok=True)
        self.done = (
            {variant_of(json.loads(line)) for line in RESULTS.read_text().splitlines()} if RESULTS.exists() else set()
        )

    def carry_out(self, *, seeds: bool) -> None:
        """Every training that has no figures yet, those of one set of rows behind each other."""
        for rows in ("all", "plain"):
            for base, numbers in ((BASE, (SEED,)), *([(TINY, SEEDS)] if seeds else [])):
                wanted = [Variant(self.behaviour, rows, steps, base, n) for n in numbers for steps in ("all", "plain")]
                if all(variant in self.done for variant in wanted):
                    continue
                run = self._run_with_rows(rows, base)
                for variant in wanted:
                    if variant not in self.done:
                        self._trained(run, variant)

    def _run_with_rows(self, rows: str, base: str) -> str:
        """The run whose rows and baseline are there."""
        name = f"{self.behaviour}-{rows}-{base}"
        program = self._program(rows)
        folder = self.home / "behaviours" / self.behaviour
        if not (folder / "behaviour.yaml").exists():
            self._command(self._program("all"), "teach", str(self._held_out / "description.yaml"), "--plan-only")
        if not (run := self._run(name)):
            plan = self.work / f"{name}.json"
            plan.write_text(json.dumps({"name": name, "goal": "ablation", "steps": self._steps(folder, rows, base)}))
            self._command(program, "run", str(plan), *_AGREED)
            run = self._run(name)
        elif self._query("select 1 from steps where run = ? and stage = 'baseline' and status = 'done'", run) == []:
            self._command(program, "run", "--resume", run, *_AGREED)
        return run

    def _steps(self, folder: Path, rows: str, base: str) -> list[Any]:
        suites = [str(self._held_out / name) for name in ("gold.yaml", "near_miss.yaml")]
        written: list[Any] = [
            {"stage": "base", "model": WRITER, "role": "teacher"},
            {
                "stage": "generate", "behaviour": str(folder), "rows": ROWS, "near_miss_rows": NEAR_MISSES,
                "rehearsal_rows": ORDINARY, "writer": "teacher", "ordinary_tokens": 64,
            },
        ]  # fmt: skip
        return [
            {"stage": "base", "model": base}, *written,
            {"stage": "critique", "on_leak": "drop", "suites": suites, "unverified_rows": True},
            {"stage": "baseline", "suites": [*suites, "general"]},
        ]  # fmt: skip

    def _trained(self, run: str, variant: Variant) -> None:
        """Train, measure, and keep the figures."""
        plain = PLAIN_STEPS if variant.steps == "plain" else {}
        flags = [word for name, value in plain.items() for word in (f"--{name}", value)]
        allowed = ["--few-rows", "--unverified-rows", "--seed", str(variant.seed)]
        self._command(self._program("all"), "train", "--run", run, *flags, *allowed, *_AGREED)
        self._command(self._program("all"), "evaluate", "--run", run, "--arm", "adapter", *_AGREED)
        steps = {
            stage: self._query(
                "select step, seconds, result from steps where run = ? and stage = ? and status = 'done' "
                "order by rowid desc limit 1", run, stage,
            )[0]
            for stage in ("generate", "critique", "train", "evaluate")
        }  # fmt: skip
        trained, kept = (json.loads(steps[stage][2]) for stage in ("train", "critique"))
        figures = {
            "train_rows": kept["train_rows"], "steps_taken": trained["steps"], "best_step": trained["best_step"],
            "validation_loss": trained["validation_loss"], "validation_kl": trained["validation_kl"],
            "seconds": {stage: round(row[1]) for stage, row in steps.items()},
        }  # fmt: skip
        figures["program"] = self._commit()
        figures["passed"] = {arm: self._answers(run, steps["evaluate"][0], arm) for arm in ("base", "adapter")}
        with RESULTS.open("a") as lines:
            lines.write(json.dumps({**variant._asdict(), **figures}, ensure_ascii=False) + "\n")

    def _answers(self, run: str, step: str, arm: str) -> dict[str, dict[str, Any]]:
        """Block → its cases and those that failed; of the base those of the baseline where it was not asked again."""
        rows = self._query("select block, case_id, passed from eval_results where step = ? and arm = ?", step, arm)
        if not rows:
            rows = self._query("select block, case_id, passed from eval_results where run = ? and arm = ?", run, arm)
        blocks: dict[str, dict[str, Any]] = {}
        for block, case, passed in sorted(rows):
            counts = blocks.setdefault(block, {"cases": 0, "failed": []})
            counts["cases"] += 1
            counts["failed"] += [] if passed else [case]
        return blocks

    @property
    def _held_out(self) -> Path:
        return HELD_OUT / "behaviours" / self.behaviour

    def _program(self, rows: str) -> Path:
        """The Python of a copy of this tree, made once, so that all trainings are of one program; or of the plain."""
        folder = self.work / rows
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            copy = Copy(folder)
            head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
            (folder / "commit").write_text(head.stdout.strip())
            for name, old, new in PLAIN_ROWS if rows == "plain" else ():
                text = (folder / name).read_text()
                if text.count(old) != 1:
                    raise SystemExit(f"{name} holds {old!r} {text.count(old)} times")
                copy.write(name, text.replace(old, new))
            (folder / "done").touch()
        return folder / ".venv" / "bin" / "python"

    def _commit(self) -> str:
        """Of the tree that the copies were made of."""
        return (self.work / "all" / "commit").read_text()

    def _command(self, python: Path, *words: str) -> None:
        environment = {**os.environ, "TUNESMITH_HOME": str(self.home), "TUNESMITH_VLLM": find_vllm(None) or ""}
        print(f"{self.behaviour}: {' '.join(words[:5])}", flush=True)
        with (self.work / "log.txt").open("ab") as log:
            done = subprocess.run(
                [str(python), "-P", "-m", "tunesmith.agent", *words],
                env=environment,
                stdout=log,
                stderr=log,
                check=False,
            )
        if done.returncode not in _OUTCOMES:
            raise SystemExit(f"ended with {done.returncode}: {self.work / 'log.txt'}")

    def _run(self, name: str) -> str:
        found = self._query("select run from runs where name = ? order by rowid desc limit 1", name)
        return str(found[0][0]) if found else ""

    def _query(self, sql: str, *values: str) -> list[tuple[Any, ...]]:
        path = self.home / "tunesmith.db"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return db.execute(sql, values).fetchall()


def variant_of(figures: Mapping[str, Any]) -> Variant:
    """Of which training they are."""
    return Variant(**{name: figures[name] for name in Variant._fields})


def table(figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Every training with what it passed of each block, and what each part brought over all behaviours of a base."""
    yield (
        f"{'behaviour':<12} {'base':<12} seed {'rows':<5} {'steps':<5} {'trained':>7} {'steps':>5} {'KL':>6} "
        f"{'right':>11} {'hard':>5} {'alike':>6} {'general':>12} {'minutes':>7}"
    )
    for one in figures:
        after, before = one["passed"]["adapter"], one["passed"]["base"]
        hard = _hard(one["behaviour"])
        right = len(hard - set(after["target"]["failed"]))
        kl = one["validation_kl"]
        yield (
            f"{one['behaviour']:<12} {one['base']:<12} {one['seed']:>4} {one['rows']:<5} {one['steps']:<5} "
            f"{one['train_rows']:>7} {one['best_step']:>5} {'' if kl is None else format(kl, '.3f'):>6} "
            f"{_passed(before['target']) + ' → ' + _passed(after['target']):>11} {f'{right}/{len(hard)}':>5} "
            f"{_failed(after['over-trigger']):>6} {_passed(before['general']) + ' → ' + _passed(after['general']):>12} "
            f"{sum(one['seconds'].values()) / 60:>7.1f}"
        )
    for part in ("rows", "steps"):
        for base in dict.fromkeys(one["base"] for one in figures):
            yield from _brought(part, [one for one in figures if one["base"] == base])


def _brought(part: str, figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Cases that pass only with a part, and only without it, of the pairs of trainings that differ in nothing else."""
    by_variant = {variant_of(one): one for one in figures}
    pairs = [
        (one, by_variant[other])
        for variant, one in by_variant.items()
        if getattr(variant, part) == "all" and (other := variant._replace(**{part: "plain"})) in by_variant
    ]
    for block in ("target", "over-trigger", "general"):
        failed = [[set(one["passed"]["adapter"][block]["failed"]) for one in pair] for pair in pairs]
        gained, lost = (sum(len(a - b) for a, b in of) for of in ([pair[::-1] for pair in failed], failed))
        cases = sum(pair[0]["passed"]["adapter"][block]["cases"] for pair in pairs)
        if pairs:
            yield (
                f"{part} on {figures[0]['base']}, {block}: {gained} cases pass only with it, {lost} only without "
                f"({cases} in {len(pairs)} pairs; p {mcnemar_exact(gained, lost):.3f} as if they were independent)"
            )


def _hard(behaviour: str) -> set[str]:
    cases = yaml.safe_load((HELD_OUT / "behaviours" / behaviour / "gold.yaml").read_text())["tests"]
    return {case["metadata"]["case_id"] for case in cases if case["metadata"].get("hard")}


def _passed(counts: Mapping[str, Any]) -> str:
    return f"{counts['cases'] - len(counts['failed'])}/{counts['cases']}"


def _failed(counts: Mapping[str, Any]) -> str:
    return f"{len(counts['failed'])}/{counts['cases']}"


if __name__ == "__main__":
    sys.exit(main())
