"""What refusing costs, in processor time: suites that explode, files that never end, queries that never stop.

The tests ask that each of them is refused; here is how soon. Goals, for the worst of its kind: 2 s for a suite, 6 s for
one that grows, 3 s for a question in SQL, a model folder, a behaviour or an answer, 1 s for a chat template. 10,000
honest cases are read beside them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.fixtures.tiny_model import make_tiny_model
from tests.tools.suites.test_bad_suites import BAD, written
from tests.trust import test_behaviours, test_bounds, test_path_attacks
from tests.trust.test_sql_attacks import ATTACKS
from tunesmith.memory.errors import BadInput
from tunesmith.memory.question_process import ask_in_process
from tunesmith.memory.store import Store
from tunesmith.tools.data.behaviour import behaviour_folder, load_behaviour, load_rehearsal
from tunesmith.tools.models.chat_template import takes_system_in
from tunesmith.tools.models.folder import check_model_folder
from tunesmith.tools.suites.grading import Assertion, CannotGrade, Response
from tunesmith.tools.suites.grading.core import TYPES, GradingContext
from tunesmith.tools.suites.loading import load_suites

_LOAD = """
import contextlib, sys
from pathlib import Path
from tunesmith.memory.errors import BadInput
from tunesmith.tools.suites.loading import load_suites
with contextlib.suppress(BadInput):
    load_suites([Path(sys.argv[1])])
"""
Costs = Iterator[tuple[str, float]]


def cost(work: Callable[[], object]) -> float:
    """Processor seconds of a refusal, those of its children included."""
    before = os.times()
    with contextlib.suppress(BadInput, CannotGrade):
        work()
    return sum(os.times()[:4]) - sum(before[:4])


def suites(folder: Path) -> Costs:
    """Each in a process of its own, whose start is part of it."""
    for number, (name, (text, _, beside)) in enumerate(BAD.items()):
        (own := folder / f"suite{number}").mkdir()
        command = [sys.executable, "-c", _LOAD, str(written(own, text, beside))]
        yield name, cost(partial(subprocess.run, command, check=True))


def questions(folder: Path) -> Costs:
    """All attacks of the tests."""
    store = Store(folder / "home")
    store.close()
    for kind, attacks in ATTACKS.items():
        for number, sql in enumerate(attacks):
            asked = sql.replace("{out}", str(folder / "out"))
            yield f"{kind} {number}", cost(partial(ask_in_process, store.path, asked))


def models(folder: Path) -> Costs:
    """Folders that are no models."""
    (folder / "evil").mkdir()
    for number, (name, spoil) in enumerate(test_path_attacks.MODELS.items()):
        model = make_tiny_model(folder / str(number))
        spoil(model)
        yield name, cost(partial(check_model_folder, model))


def behaviours(folder: Path) -> Costs:
    """Folders that are no behaviours, and files that are none."""
    for number, (name, spoil) in enumerate(test_path_attacks.BEHAVIOURS.items()):
        made = folder / str(number)
        shutil.copytree(behaviour_folder("demo"), made)
        spoil(made)
        yield name, cost(lambda made=made: (load_behaviour(str(made)), load_rehearsal(str(made))))
    for make in (test_behaviours._zeros, test_behaviours._bomb, test_behaviours._deep, test_behaviours._wide):
        path = folder / f"{make.__name__}.yaml"
        make(path)
        yield make.__name__, cost(partial(load_behaviour, str(path)))


def templates(folder: Path) -> Costs:
    """A million characters of what a template refuses with."""
    for part in ("raise_exception('", "raise_exception(" + " " * 99, "raise_exception('system is ", "'"):
        text = part * (1_000_000 // len(part)) + "\"role alternate')"
        yield part.strip(), cost(partial(takes_system_in, text))


def answers(folder: Path) -> Costs:
    """Answers that are graded, or are too long to be."""
    for name, (kind, text, value) in test_bounds.ANSWERS.items():
        graded = partial(TYPES[kind].handler, Assertion(type=kind, value=value), Response(text=text), GradingContext())
        yield name, cost(graded)


def growing(folder: Path) -> Costs:
    """Suites that say more than a suite may."""
    for name, (text, beside) in test_bounds.SUITES.items():
        path = test_bounds.suite(folder, text, **beside)
        yield name, cost(partial(load_suites, [path]))


KINDS: dict[str, tuple[Callable[[Path], Costs], float]] = {
    "suites": (suites, 2.0), "questions": (questions, 3.0), "models": (models, 3.0), "behaviours": (behaviours, 3.0),
    "templates": (templates, 1.0), "answers": (answers, 3.0), "growing suites": (growing, 6.0),
}  # fmt: skip


def main() -> int:
    """Print least, median and worst of each kind; 1 where the worst of one misses its goal."""
    good = True
    for kind, (costs, goal_s) in KINDS.items():
        with tempfile.TemporaryDirectory() as name:
            found = dict(costs(Path(name)))
        worst = max(found, key=lambda name: found[name])
        good &= found[worst] <= goal_s
        least, median = min(found.values()), statistics.median(found.values())
        print(f"{'ok  ' if found[worst] <= goal_s else 'MISS'} {len(found)} {kind}: {least:.2f} s at least, "
              f"{median:.2f} s median, {found[worst]:.2f} s at worst ({worst!r}), of {goal_s:.0f}")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "suite.yaml"
        rows = "".join(f"- {{vars: {{q: question {n}}}, metadata: {{case_id: c{n}}}}}\n" for n in range(10_000))
        path.write_text(
            f"prompts: ['{{{{q}}}}']\ndefaultTest: {{assert: [{{type: contains, value: a}}]}}\ntests:\n{rows}"
        )
        started = time.process_time()
        print(f"     {len(load_suites([path]).cases)} cases are read in {time.process_time() - started:.2f} s")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
