"""Suites: promptfoo's YAML, its declarative part, read into cases that can be asked and graded.

Anything that would run code, reach the network or leave the suite's folder is refused by name, at its line,
before any case exists. Parsing itself is in `suite_parse`; this module is what the stages use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, listed
from tunesmith.tools.core.local_paths import BUNDLED_BEHAVIOUR, bundled_behaviour, expanded, local_path
from tunesmith.tools.suites.case import BLOCKS, LISTED_BLOCKS, Case, Suite, claimed_cases
from tunesmith.tools.suites.grading import asks_model

BUNDLED = ("general", "tools")
"""Suites that come with tunesmith, for any model."""


def load_suites(paths: Sequence[Path], *, models: Collection[str] = ()) -> Suite:
    """Parse suite files into one suite. Raises BadInput with file, line, reason and the next thing to do.

    `general` and `tools` name the suites that come with tunesmith. `models` are the roles ("judge", "embedder") that
    somebody fills: assertions that ask another are refused by name.
    """
    from tunesmith.tools.suites.parse import parse_suite

    if not paths:
        raise BadInput(f"no suite named; give promptfoo YAML files, or {' or '.join(BUNDLED)}")
    cases: dict[str, tuple[Case, str]] = {}
    twice: list[tuple[str, str]] = []
    for path in paths:
        for case, place in _parsed_bundled(str(path)) if str(path) in BUNDLED else parse_suite(Path(path)):
            if case.case_id in cases:
                twice.append((case.case_id, place))
                continue
            _refuse_models(case, place, models)
            cases[case.case_id] = case, place
    if twice:
        (case_id, place), *others = twice
        more = f"; {count(len(others), 'more test')} likewise: {listed([at for _, at in others], 3)}" if others else ""
        raise BadInput(
            f"{place}: the case id {case_id!r} is taken by the test at {cases[case_id][1]}; give one of them another "
            f"metadata.case_id, or remove the copy{more}"
        )
    return Suite(cases=tuple(case for case, _ in cases.values()))


def usual_suite() -> Suite:
    """The cases of a run that names none."""
    return load_named_suites((BUNDLED_BEHAVIOUR,))


@cache
def _parsed_bundled(name: str) -> tuple[tuple[Case, str], ...]:
    """A plan that is priced for several bases reads these a dozen times."""
    from tunesmith.tools.suites.parse import parse_suite

    return tuple(parse_suite(bundled(Path(name))))  # an iterator gives them once


def bundled(path: Path) -> Path:
    """The bundled suite that a bare name stands for, as no suite file lacks a suffix; any other path as it is."""
    if str(path) not in BUNDLED:
        return path
    return Path(str(files("tunesmith.prompts"))) / "suites" / f"{path}.yaml"


def metric_names(cases: Iterable[Case]) -> set[str]:
    """Every name that an assertion of these cases gives as its metric."""
    return {a.metric for case in cases for top in case.assertions for a in (top, *top.children) if a.metric}


_MISSING = {
    "judge": "asks a judge, and none is given here: baseline and evaluate serve one; use a deterministic type such as "
    "icontains, regex or is-json",
    "embedder": "needs an embedding model, and none is given here; pip install 'tunesmith[similar]', or use rouge-n",
}


def _refuse_models(case: Case, place: str, models: Collection[str]) -> None:
    for kind, role in asks_model(case.assertions).items():
        if role not in models:
            raise BadInput(f"{place}: the assertion type {kind!r} {_MISSING[role]}")


@dataclass(frozen=True, slots=True)
class CheckedCase:
    """A case as `suite check` lists it."""

    case_id: str
    block: str
    assertions: list[str]
    suite: str
    arms: list[str]
    message: str
    """The last thing that is said in it."""


@dataclass(frozen=True, slots=True)
class CheckedSuite:
    """What suite files hold, and what all of it needs; its fields are those of `suite check --json`."""

    cases: list[CheckedCase]
    sha256: str
    blocks: dict[str, int]
    splits: dict[str, dict[str, int]]
    seed_rows: dict[str, int]
    types: dict[str, int]
    asks: dict[str, str]
    """Type of assertion → the role of the model that it asks."""
    metrics: list[str]
    tools: list[str]
    requests: int
    """Questions that one arm is asked."""


def checked_suite(suite: Suite) -> CheckedSuite:
    """`suite check`: the cases, with block, types of assertion and what is asked, and what all of them need."""
    types = Counter(kind for case in suite.cases for kind in case.assertion_types)
    offered = [tool["function"] for case in suite.cases for tool in case.tools]
    return CheckedSuite(
        cases=[
            CheckedCase(case.case_id, case.block, case.assertion_types, case.suite, list(case.arms or ARMS), case.asks)
            for case in suite.cases
        ],
        sha256=suite.sha256,
        blocks={b: len(suite.block(b)) for b in BLOCKS if suite.block(b)},
        splits={b: _splits(suite.block(b)) for b in BLOCKS if any(case.is_blind for case in suite.block(b))},
        seed_rows={b: len({case.cluster for case in suite.block(b)}) for b in BLOCKS if suite.block(b)},
        types=dict(types.most_common()),
        asks={kind: role for case in suite.cases for kind, role in asks_model(case.assertions).items()},
        metrics=sorted(metric_names(suite.cases)),
        tools=sorted({str(function["name"]) for function in offered if isinstance(function, dict)}),
        requests=sum(case.repeat for case in suite.cases),
    )


def _splits(cases: Sequence[Case]) -> dict[str, int]:
    return dict(Counter("blind" if case.is_blind else "dev" for case in cases))


_BLOCK_FILES = ("target", "blind", "over-trigger", "general", "tools", "adversarial")
_BLIND_SHARE = 0.75
"""Of a subsampled block: the claim rests on its blind cases."""


SuiteName = Annotated[str, local_path(BUNDLED_BEHAVIOUR, *BUNDLED)]
"""A suite in a request: a file, or a short name."""


def bundled_suites() -> list[Path]:
    """The bundled behaviour's own: target (dev and blind), over-trigger, general, adversarial; those that are there."""
    paths = [bundled_behaviour() / "suites" / f"{block}.yaml" for block in _BLOCK_FILES]
    return [path for path in paths if path.is_file()]


def load_named_suites(names: Sequence[str], cases_per_block: int = 0) -> Suite:
    """Parse suites by file name, or by the bundled behaviour's; at most so many cases of each block.

    Assertions that ask a model are read: whether somebody answers for it, `judging.find_models` says.
    """
    ours = all(name in (BUNDLED_BEHAVIOUR, *BUNDLED) for name in names)
    return subsample((_read_once if ours else _read_named)(tuple(names)), cases_per_block)


def _read_named(names: tuple[str, ...]) -> Suite:
    paths = [path for name in names for path in (bundled_suites() if name == BUNDLED_BEHAVIOUR else [expanded(name)])]
    return load_suites(paths, models=("judge", "embedder"))


_read_once = cache(_read_named)
"""Of files that come with tunesmith: every step of a plan reads them for its price."""


def subsample(suite: Suite, cases_per_block: int) -> Suite:
    """At most `cases_per_block` cases of each block, evenly spaced over it so that its kinds stay mixed; 0: all.

    A thinned suite has no adversarial block beside others: it gates nothing, so it is the first to go. Of a block with
    blind cases three of four that stay are those that a claim rests on, as far as there are so many, and people's own
    come before a model's.
    """
    if not cases_per_block:
        return suite
    sampled = []
    blocks = list(dict.fromkeys(case.block for case in suite.cases))
    for block in [name for name in blocks if name not in LISTED_BLOCKS] or blocks:
        cases = [case for case in suite.cases if case.block == block]
        claimed = claimed_cases(cases)
        ids = {case.case_id for case in claimed}
        dev = [case for case in cases if case.case_id not in ids]
        count = min(cases_per_block, len(cases))
        most = min(len(claimed), max(round(_BLIND_SHARE * count), count - len(dev)))
        own, others = ([case for case in claimed if case.of_people is wanted] for wanted in (True, False))
        peoples = _spaced(own, min(len(own), most))
        sampled += _spaced(dev, count - most) + peoples + _spaced(others, most - len(peoples))
    return Suite(cases=tuple(sampled))


def _spaced(cases: Sequence[Case], count: int) -> list[Case]:
    return [cases[index * len(cases) // count] for index in range(count)]


def read_suite(path: Path) -> Suite:
    """The suite that a baseline fixed, as it was parsed then."""
    return Suite.from_json(path.read_text())


def newest_cases(store: Store, run: str) -> tuple[Case, ...]:
    """The cases of the newest suite of a run; none where its file is gone, or is another version's."""
    suites = store.artifacts(run, "suite")
    try:
        return read_suite(suites[-1].path).cases if suites else ()
    except (OSError, ValueError, BadInput):  # for a look alone; whoever compares says why it cannot be read
        return ()
