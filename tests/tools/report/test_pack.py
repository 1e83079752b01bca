"""A packed run holds on another machine; what was changed in it, or before it was packed, is named."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from tests.fixtures.stored_runs import Builder, new_builder
from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write
from tunesmith.memory.marks import Mark, add_mark
from tunesmith.memory.records import Artifact, EvalResult
from tunesmith.memory.step_records import keep_record
from tunesmith.memory.store import Store
from tunesmith.tools.report.pack import CLAIMS, INDEX, RECORDS, pack
from tunesmith.tools.report.verify_pack import Verified, verify_pack
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.suites.grading import Assertion, Response, grade_deterministic

_KEY = {"engine": "vllm", "precision": "bfloat16", "template": "t", "sampling": "temperature=0"}


def the_suite() -> Suite:
    return Suite(
        cases=tuple(
            Case(
                case_id=f"target-{number}", block="target", suite="target",
                messages=({"role": "user", "content": f"Order {number}?"},),
                assertions=(Assertion(type="contains", value=f"order {number}"),),
            )
            for number in range(12)
        )
    )  # fmt: skip


def answered(build: Builder, step: str, arm: str, right: int) -> None:
    for number, case in enumerate(the_suite().cases):
        output = f"It is order {number}." if number < right else "I do not know."
        grade = grade_deterministic(case, Response(output))
        result = EvalResult(
            arm, "target", case.case_id, "k", output, grade.passed, grade.score, assertions=list(grade.assertions)
        )
        build.store.add_results(build.run, step, [result])


def file_of(build: Builder, step: str, kind: str, text: str, **meta: object) -> str:
    path = build.store.home / "runs" / build.run / step / f"{kind}.json"
    atomic_write(path, text)
    digest = sha256(text.encode()).hexdigest()
    return build.store.add_artifact(Artifact("", build.run, step, kind, path, digest, len(text), (), dict(meta))).id


def ended(build: Builder, step: str, result: dict[str, object]) -> None:
    build.end(step, 1.0, 1, result)
    keep_record(build.store, step, build.store.home / "runs" / build.run / step)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    build = new_builder(tmp_path / "home")
    step = build.step("base")
    base = build.artifact(step, "base", str(tmp_path / "home" / "models" / "b"))
    key = {**_KEY, "weights": build.store.artifact(base).sha256, "suite": the_suite().sha256}
    (build.store.home / "runs" / build.run / step).mkdir(parents=True)
    ended(build, step, {"artifact": base})
    step = build.step("baseline", arm="base")
    answered(build, step, "base", 2)
    suite = file_of(build, step, "suite", the_suite().to_json(), suite_sha256=the_suite().sha256)
    ended(build, step, {"artifact": suite, "key": key})
    step = build.step("evaluate", arm="adapter")
    answered(build, step, "base", 2)
    answered(build, step, "adapter", 11)
    results = file_of(build, step, "results", "{}")
    keys = {"base": key, "adapter": {**key, "adapter": "ab" * 32}}
    ended(build, step, {"artifact": results, "arm": "adapter", "keys": keys, "comparisons": []})
    return build.store


def packed(store: Store, path: Path) -> Path:
    pack(store, "r1", path, "0.1.0")
    return path


def changed(path: Path, name: str, change: Callable[[bytes], bytes], *, index_too: bool = False) -> Path:
    """The archive with one member changed; its digest in the index as well, as a forger would."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    members[name] = change(members[name])
    if index_too:
        index = json.loads(members[INDEX])
        index["members"][name] = sha256(members[name]).hexdigest()
        members[INDEX] = json.dumps(index).encode()
    target = path.with_suffix(".changed.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return target


def named(verified: Verified) -> str:
    return "; ".join(f"{one.what}: {one.stored} / {one.again}" for one in verified.differences)


def test_what_was_packed_holds(store: Store, tmp_path: Path) -> None:
    verified = verify_pack(packed(store, tmp_path / "r1.zip"))
    assert verified.holds, named(verified)
    assert (verified.run, verified.graded, verified.judged) == ("r1", 36, 0)


def test_the_journal_of_what_was_said_stays_in_the_home(store: Store, tmp_path: Path) -> None:
    add_mark(store, Mark("b", "r1", "s1", "row1", "keep", "a private word", "right", "wrong"))
    assert (store.home / "runs" / "r1" / "marks.jsonl").is_file()
    with zipfile.ZipFile(packed(store, tmp_path / "r1.zip")) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".jsonl")]
        assert all(b"a private word" not in archive.read(name) for name in archive.namelist())


def test_the_same_run_gives_the_same_archive(store: Store, tmp_path: Path) -> None:
    one, two = packed(store, tmp_path / "1.zip"), packed(store, tmp_path / "2.zip")
    assert one.read_bytes() == two.read_bytes()


@table(
    ("sql", "what"),
    [
        (
            "UPDATE eval_results SET output = 'It is order 3!' WHERE arm = 'adapter' AND case_id = 'target-3'",
            "eval_results s3 adapter target-3 0, output: It is order 3! / It is order 3.",
        ),
        (
            "UPDATE eval_results SET passed = 1, score = 1.0 WHERE arm = 'adapter' AND case_id = 'target-11'",
            "s3 adapter target-11, grade: passed, score 1 / failed, score 0",
        ),
        (
            "UPDATE steps SET result = json_set(result, '$.claim', 'learned') WHERE step = 's3'",
            "step s3, result",
        ),
        ("DELETE FROM eval_results WHERE arm = 'base' AND case_id = 'target-0'", "eval_results s3 base target-0 0"),
    ],
)
def test_a_row_of_the_store_that_was_edited_before_is_named(store: Store, tmp_path: Path, sql: str, what: str) -> None:
    with store.write() as conn:
        copy = conn.execute("SELECT * FROM eval_results").fetchall()
        results = conn.execute("SELECT step, result FROM steps").fetchall()
        conn.execute(sql)
    verified = verify_pack(packed(store, tmp_path / "r1.zip"))
    assert not verified.holds and what in named(verified)
    with store.write() as conn:  # the rows of the table share the store
        conn.execute("DELETE FROM eval_results")
        conn.executemany(f"INSERT INTO eval_results VALUES ({', '.join('?' * len(copy[0]))})", [tuple(r) for r in copy])
        conn.executemany("UPDATE steps SET result = ?2 WHERE step = ?1", [tuple(row) for row in results])


def test_a_flipped_byte_is_named(store: Store, tmp_path: Path) -> None:
    path = packed(store, tmp_path / "r1.zip")
    flipped = changed(path, RECORDS, lambda data: data.replace(b"It is order 5.", b"It is order 6.", 1))
    assert "the file records.json" in named(verify_pack(flipped))
    forged = changed(path, RECORDS, lambda data: data.replace(b"It is order 5.", b"It is order 6."), index_too=True)
    differs = named(verify_pack(forged))
    assert "the file records.json" not in differs and "target-5" in differs


def test_a_comparison_that_its_answers_do_not_give_is_named(store: Store, tmp_path: Path) -> None:
    path = packed(store, tmp_path / "r1.zip")
    better = changed(path, CLAIMS, lambda data: data.replace(b'"adapter": 11', b'"adapter": 12', 1), index_too=True)
    assert "compare base,adapter blocks target passed adapter: 12 / 11" in named(verify_pack(better))


def test_a_suite_that_was_changed_is_named(store: Store, tmp_path: Path) -> None:
    path = packed(store, tmp_path / "r1.zip")
    eased = changed(path, "runs/r1/s2/suite.json", lambda data: data.replace(b"order 11", b"know"), index_too=True)
    differs = named(verify_pack(eased))
    assert "the digest of runs/r1/s2/suite.json" in differs
    assert "the suite that adapter answered in s3: whole / not what the baseline wrote" in differs


def test_what_changed_since_it_was_made_is_not_packed(store: Store, tmp_path: Path) -> None:
    [suite] = store.artifacts("r1", "suite")
    suite.path.write_text("{}")
    with pytest.raises(BadInput, match=r"suite.json changed since s2 made it, so r1 is not packed"):
        pack(store, "r1", tmp_path / "r1.zip", "0.1.0")
    assert not (tmp_path / "r1.zip").exists()


def hostile(tmp_path: Path, members: dict[str, bytes]) -> Path:
    path = tmp_path / f"hostile{len(list(tmp_path.glob('hostile*')))}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@table(
    ("members", "told"),
    [
        ({"../../etc/x": b""}, "has a member '../../etc/x', which no pack has"),
        ({"runs/r1/s1/../../x": b""}, "which no pack has"),
        ({INDEX: b"{}"}, "is no archive of a run: it has no claims.json"),
        ({INDEX: b"{}", RECORDS: b"{}", CLAIMS: b"{}"}, "has form None"),
        ({INDEX: b"[" * 100_000, RECORDS: b"{}", CLAIMS: b"{}"}, "pack.json in the archive is no JSON"),
        ({INDEX: b'{"format": 1, "run": "r1"}', RECORDS: b'{"steps": [{"x": 1}]}', CLAIMS: b"{}"}, "records cannot be"),
        ({"runs/r1/s1/zeros": b"\0" * (300 << 20)}, "unpacks to more than 256 MB"),
    ],
)
def test_an_archive_that_is_none_is_refused_in_a_sentence(tmp_path: Path, members: dict[str, bytes], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        verify_pack(hostile(tmp_path, members))


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 but no more")
    with pytest.raises(BadInput, match=r"x.zip is no whole archive of a run"):
        verify_pack(tmp_path / "x.zip")
    for name, told in (("none.zip", "none.zip is not there; name an archive"), ("", f"{tmp_path.name} is a folder; ")):
        with pytest.raises(BadInput, match=told):
            verify_pack(tmp_path / name)
