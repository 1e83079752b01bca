"""Check the archive of a run, on any machine: digests, gradings, statistics and the verdict, from the answers alone.

The archive is a stranger's: it is read in a confined child, with a limit on members and bytes, and nothing in it names
a place outside a temporary home. What cannot be checked without a model (a judge's marks) is counted, and said.
"""

from __future__ import annotations

import gzip
import json
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tunesmith.memory.bundles import Records, as_records, put_run
from tunesmith.memory.confined import Limits, confined
from tunesmith.memory.errors import BadInput, NotFound, StepFailed
from tunesmith.memory.json_values import as_object
from tunesmith.memory.records import DONE, EvalResult
from tunesmith.memory.step_records import RECORD
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.pairing import Evaluations, cases_of
from tunesmith.tools.evaluation.verdict import RULE
from tunesmith.tools.report.pack import CLAIMS, FORMAT, INDEX, RECORDS, claims_of
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import PENDING, Response, grade_deterministic, total

_MOST_MEMBERS, _MOST_BYTES = 2_000, 1 << 28
"""Of an archive, unpacked: a run of 100,000 answers stays below it."""
_PLACE = re.compile(r"runs/r\d{1,9}/s\d{1,9}/[\w][\w.-]{0,99}")
_LIMITS = Limits(cpu_s=300.0, memory_bytes=4 << 30, file_bytes=1 << 30)
_SHOWN = 200
"""Characters of a value in a difference."""
_KEPT = ("artifacts", "eval_results", "metrics")
"""Records that nothing changes after their step ended."""
_KEYS = {
    "artifacts": ("artifact",),
    "eval_results": ("step", "arm", "case_id", "repeat"),
    "metrics": ("step", "name", "x"),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the archive says."""

    what: str
    stored: str
    again: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of a check."""

    run: str
    name: str
    differences: tuple[Difference, ...]
    graded: int
    """Answers that were graded again."""
    judged: int
    """Answers whose grade hangs on a model: only their sum was checked."""

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def verify_pack(path: Path) -> Verified:
    """Check an archive. Raises BadInput for a file that is no archive of a run, or is over the limits."""
    if not path.is_file():
        raise NotFound(f"{path} is {'a folder' if path.is_dir() else 'not there'}; name an archive of `tunesmith pack`")
    with tempfile.TemporaryDirectory(prefix="tunesmith-verify-") as home:
        items = list(confined(_checked, {"archive": str(path.resolve()), "home": home}, path.name, _LIMITS))
    head, *rest = items
    return Verified(differences=tuple(Difference(**one) for one in rest), **head)


def _checked(argument: Mapping[str, str]) -> Iterator[dict[str, object]]:
    """In the child: the head of the answer, then each difference."""
    members = _members(Path(argument["archive"]))
    index = as_object(_document(members, INDEX))
    if index.get("format") != FORMAT:
        raise BadInput(f"the archive has form {index.get('format')!r}, this tunesmith reads {FORMAT}; update tunesmith")
    differences = [*_digests(members, as_object(index.get("members", {})))]
    store = Store(Path(argument["home"]) / "home")
    counts = {"graded": 0, "judged": 0}
    try:
        records = as_records(_document(members, RECORDS))
        run = str(index["run"])
        put_run(store, records)
        _put_files(store.home, members)
        differences += [*_record_differences(members, records)]
        differences += [*_grading_differences(store, run, counts)]
        differences += [*_claim_differences(store, run, as_object(_document(members, CLAIMS)), index)]
    except (StepFailed, TypeError, KeyError, ValueError) as error:
        raise BadInput(
            f"the archive's records cannot be read ({type(error).__name__}: {str(error)[:_SHOWN]})"
        ) from None
    finally:
        store.close()
    yield {"run": run, "name": store_name(records, run), **counts}
    for what, stored, again in dict.fromkeys(differences):
        yield {"what": what, "stored": stored, "again": again}


def store_name(records: Records, run: str) -> str:
    """The name of the archive's run."""
    return next((str(row["name"]) for row in records["runs"] if row["run"] == run), "")


def _members(path: Path) -> dict[str, bytes]:
    """Name → bytes. Raises BadInput for names, numbers and sizes that no archive of ours has."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if len(infos) > _MOST_MEMBERS or sum(info.file_size for info in infos) > _MOST_BYTES:
                raise BadInput(f"{path.name} unpacks to more than {_MOST_BYTES >> 20} MB or {_MOST_MEMBERS:,} members")
            members: dict[str, bytes] = {}
            for info in infos:
                if info.filename not in (INDEX, RECORDS, CLAIMS) and not _PLACE.fullmatch(info.filename):
                    raise BadInput(f"{path.name} has a member {info.filename[:80]!r}, which no pack has")
                with archive.open(info) as file:
                    members[info.filename] = file.read(info.file_size + 1)[: info.file_size]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise BadInput(f"{path.name} is no whole archive of a run ({str(error)[:_SHOWN]}); copy it again") from None
    if missing := {INDEX, RECORDS, CLAIMS} - set(members):
        raise BadInput(f"{path.name} is no archive of a run: it has no {min(missing)}")
    return members


def _document(members: Mapping[str, bytes], name: str) -> object:
    try:
        return json.loads(members[name])
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name} in the archive is no JSON ({str(error)[:80]})") from None


_Change = tuple[str, str, str]


def _digests(members: Mapping[str, bytes], digests: Mapping[str, object]) -> Iterator[_Change]:
    for name in sorted(({*members} | {*digests}) - {INDEX}):
        again = sha256(members[name]).hexdigest() if name in members else "it is missing"
        if digests.get(name) != again:
            yield f"the file {name}", str(digests.get(name, "not in the index")), again


def _put_files(home: Path, members: Mapping[str, bytes]) -> None:
    for name, data in members.items():
        if _PLACE.fullmatch(name):
            target = home / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def _record_differences(members: Mapping[str, bytes], records: Records) -> Iterator[_Change]:
    """What a step's own folder says otherwise than the store did when the run was packed."""
    results = {str(row["step"]): row for row in records["steps"]}
    artifacts = {str(row["path"]): row for row in records["artifacts"]}
    for name, data in members.items():
        stored = artifacts.get(f"$TUNESMITH_HOME/{name}")
        if stored and stored["sha256"] != sha256(data).hexdigest():
            yield f"the digest of {name}", str(stored["sha256"]), sha256(data).hexdigest()
        if not name.endswith(f"/{RECORD}"):
            continue
        try:
            own = as_records(as_object(json.loads(gzip.decompress(data)))["records"])
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):
            yield f"the record {name}", "whole", "damaged"
            continue
        (step,) = own["steps"]
        for column in ("request", "result", "plan_hash", "status"):
            if (now := results.get(str(step["step"]), {}).get(column)) != step[column]:
                yield f"step {step['step']}, {column}", _short(now), _short(step[column])
        for table in _KEPT:
            yield from _table_differences(table, own[table], records[table], str(step["step"]))


def _table_differences(
    table: str, own: Iterable[Mapping[str, object]], now: Iterable[Mapping[str, object]], step: str
) -> Iterator[_Change]:
    def by_key(rows: Iterable[Mapping[str, object]]) -> dict[tuple[object, ...], Mapping[str, object]]:
        return {tuple(row[name] for name in _KEYS[table]): row for row in rows if row["step"] == step}

    then, packed = by_key(own), by_key(now)
    for key in sorted({*then} | {*packed}, key=str):
        named = f"{table} {' '.join(map(str, key))}"
        if key not in then or key not in packed:
            yield named, "there" if key in packed else "missing", "there" if key in then else "missing"
            continue
        for column, value in then[key].items():
            if packed[key].get(column) != value:
                yield f"{named}, {column}", _short(packed[key].get(column)), _short(value)


def _grading_differences(store: Store, run: str, counts: dict[str, int]) -> Iterator[_Change]:
    """Every stored answer graded again by the suite that it was given to."""
    for step, keys in Evaluations.of(store, run).keys.items():
        for arm, key in keys.items():
            try:
                cases = cases_of(store, run, key.get("suite"))
            except BadInput:  # its own digest says so
                yield f"the suite that {arm} answered in {step}", "whole", "not what the baseline wrote"
                continue
            for result in store.results(step, arm):
                if result.error is None and (case := cases.get(result.case_id)) is not None:
                    counts["graded"] += 1
                    yield from _graded_again(step, case, result, counts)


def _graded_again(step: str, case: Case, result: EvalResult, counts: dict[str, int]) -> Iterator[_Change]:
    again = grade_deterministic(case, Response.stored(result))
    if any(one.reason == PENDING for one in again.assertions):  # a model's marks are taken as they are stored
        counts["judged"] += 1
        try:
            again = total(case, result.assertions)
        except StopIteration:
            yield f"{step} {result.arm} {case.case_id}, marks", str(len(result.assertions)), "too few for its case"
            return
    stored = (result.passed, result.score)
    if again.error is None and stored != (again.passed, again.score):
        named = f"{step} {result.arm} {case.case_id}, grade"
        yield named, _grade(*stored), _grade(again.passed, again.score)


def _grade(passed: bool | None, score: float | None) -> str:
    return f"{'passed' if passed else 'failed'}, score {score:g}" if score is not None else "no grade"


def _claim_differences(
    store: Store, run: str, claims: Mapping[str, object], index: Mapping[str, object]
) -> Iterator[_Change]:
    """Every comparison and verdict made again from the answers; of an older rule the word stays as it was said."""
    again = claims_of(store, run)
    if index.get("rule") != RULE:
        yield "the rule of the verdicts", str(index.get("rule")), f"this tunesmith decides by rule {RULE}"
    for arm in sorted({*claims} | {*again}):
        yield from _value_differences(f"compare base,{arm}", claims.get(arm), again.get(arm))
    for step in store.steps(run, status=DONE):
        word, arm = step.report.get("claim"), str(step.report.get("arm", ""))
        now = again.get(arm, {}).get("claim")
        newest = [one.id for one in store.steps(run, status=DONE) if one.report.get("arm") == arm][-1:] == [step.id]
        if word and newest and step.report.get("claim_rule") == RULE and now is not None and now != word:
            yield f"step {step.id}, claim", str(word), str(now)


def _value_differences(path: str, stored: object, again: object) -> Iterator[_Change]:
    again = json.loads(json.dumps(again))
    if isinstance(stored, dict) and isinstance(again, dict):
        for name in sorted({*stored} | {*again}):
            yield from _value_differences(f"{path} {name}", stored.get(name), again.get(name))
    elif stored != again:
        yield path, _short(stored), _short(again)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
