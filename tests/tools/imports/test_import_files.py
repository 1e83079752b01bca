"""Files of rows that a stranger wrote: each is read within bounds, or refused in a sentence; nothing else is opened."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import socket
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import parquet

from tunesmith.memory.confined import OverLimits
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.record_files import strict_json, text_records
from tunesmith.tools.core.stage import GIB, Facts
from tunesmith.tools.imports import sources
from tunesmith.tools.imports.formats import Problem, convert
from tunesmith.tools.imports.import_rows import ImportContext, ImportRequest, plan
from tunesmith.tools.imports.sources import (
    Look,
    Stopped,
    Totals,
    digest_of,
    find_files,
    inspect_files,
    rows_of,
    take,
    unclear,
)

ROOT = Path(__file__).resolve().parents[3]
MB = 1 << 20
FACTS = Facts(Path("/home"), Machine("test", 2, 64 * GIB, 64 * GIB, 0, 64 * GIB), "r1")
ROW = json.dumps({"prompt": "2+2?", "completion": "4"}) + "\n"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child finds the tests' own stand-ins."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def look(path: Path, limit: int = 100_000) -> Look:
    found = find_files(path)
    return inspect_files(found.files, found.bytes, {}, limit)


def taken(
    path: Path, limit: int = 100_000, most_bytes: int = 64 * MB
) -> tuple[list[TrainingRow], list[Problem], Totals]:
    items = list(rows_of(find_files(path).files, {}, limit, most_bytes))
    end = items.pop()
    assert isinstance(end, Totals)
    rows = [one for one in items if isinstance(one, TrainingRow)]
    return rows, [one for one in items if isinstance(one, Problem)], end


def written(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def table(path: Path, columns: dict[str, Any], metadata: dict[str, Any] | None = None) -> Path:
    made = pa.table(columns)
    if metadata:
        made = made.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    if path.suffix == ".parquet":
        parquet.write_table(made, path, compression="zstd")
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, made.schema) as writer:
            writer.write_table(made)
    return path


# Parquet and Arrow


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_what_a_table_says_of_its_columns_opens_and_fetches_nothing(name: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        pictures = [{"bytes": None, "path": path} for path in (url, str(tmp_path / "fifo"), "/etc/hostname")]
        os.mkfifo(tmp_path / "fifo")
        columns = {"prompt": ["a", "b", "c"], "completion": ["d", "e", "f"], "pic": pa.array(
            pictures, type=pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}  # fmt: skip
        features = {"pic": {"_type": "Image"}, "prompt": {"dtype": "string", "_type": "Value"}}
        path = table(tmp_path / name, columns, {"info": {"features": features}})
        before = sorted(file.name for file in tmp_path.iterdir())
        assert look(path).left_out == ("pic (struct<bytes: binary, path: string>)",)
        rows, problems, end = taken(path)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert [row.completion[0]["content"] for row in rows] == ["d", "e", "f"] and not problems and end.records == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == before


@pytest.mark.heavy
def test_extension_types_and_vectors_are_left_out_and_labels_are_text(tmp_path: Path) -> None:
    columns = {
        "prompt": ["a"], "completion": pa.array([7], pa.int64()), "tag": pa.array(["x"]).dictionary_encode(),
        "vector": [[0.5, 0.25]], "uuid": pa.array([b"0" * 16], pa.uuid()), "at": pa.array([1], pa.timestamp("s")),
    }  # fmt: skip
    found = look(table(tmp_path / "rows.parquet", columns))
    assert [name.partition(" ")[0] for name in found.left_out] == ["vector", "uuid", "at"]
    rows, *_ = taken(tmp_path / "rows.parquet")
    assert rows[0].completion[0]["content"] == "7" and set(rows[0].attributes.as_json()) == {"number"}


@pytest.mark.heavy
def test_lists_of_messages_keep_their_turns(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    rows, *_ = taken(table(tmp_path / "rows.parquet", {"messages": [talk] * 100}))
    assert len(rows) == 100 and [turn["content"] for turn in (*rows[99].prompt, *rows[99].completion)] == ["hi", "ho"]


@pytest.mark.heavy
def test_a_small_file_that_decodes_to_much_is_bounded_by_bytes_and_a_limit_takes_its_beginning(tmp_path: Path) -> None:
    path = table(tmp_path / "bomb.parquet", {"prompt": ["x" * 20_000] * 2_000, "completion": ["y"] * 2_000})
    assert path.stat().st_size < 100_000
    found = look(path)
    assert found.records == 2_000 and found.read_bytes > 39e6
    with pytest.raises(BadInput, match=r"first (\d+) records hold over 10 MB.*--limit \d+, or split"):
        taken(path, most_bytes=10_000_000)
    assert len(taken(path, limit=10, most_bytes=10_000_000)[0]) == 10


def test_the_rows_of_an_import_are_bounded_in_bytes_and_what_fits_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in memory whole, however little was read for them."""
    path = written(tmp_path / "a.jsonl", ROW * 10)
    argument = {"files": [str(path)], "mapping": {}, "limit": 100, "most_bytes": 64 * MB}
    rows = [values for kind, *values in take(argument) if kind == "row"]
    bytes_ = sum(len(json.dumps(row[1:])) for row in rows)
    monkeypatch.setattr(sources, "MAX_IMPORT_BYTES", bytes_)
    assert [values for kind, *values in take(argument) if kind == "row"] == rows
    monkeypatch.setattr(sources, "MAX_IMPORT_BYTES", bytes_ - 1)
    with pytest.raises(BadInput, match=r"first 10 records hold over 0 MB of rows, .* --limit 9, or split"):
        list(take(argument))


@pytest.mark.heavy
def test_one_value_repeated_to_gigabytes_is_refused_by_its_plan(tmp_path: Path) -> None:
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 200_000, pa.int32()), pa.array(["x" * 150_000]))
    path = table(tmp_path / "bomb.parquet", {"prompt": repeated, "completion": ["y"] * 200_000})
    assert path.stat().st_size < 100_000
    context = ImportContext("bomb", look(path), {})
    [refusal] = plan(ImportRequest(source=str(path)), FACTS, context).refusals
    assert "100,000 records come to 15.0 GB" in refusal and "--limit" in refusal


@pytest.mark.heavy
def test_a_list_that_decodes_to_more_than_memory_ends_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "CHILD_BYTES", 384 * MB)
    count = 20_000_000
    lists = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.nulls(count, pa.string()))
    path = table(tmp_path / "bomb.parquet", {"messages": lists})
    with pytest.raises(OverLimits, match=r"384 MB of memory, and was ended; take fewer records with --limit"):
        look(path)


# Text


@pytest.mark.parametrize(
    ("name", "data", "wrong"),
    [
        ("a.jsonl", gzip.compress(ROW.encode(), mtime=0), "gzip"),
        ("a.jsonl", pickle.dumps({"a": 1}), "pickle"),
        ("a.parquet", pickle.dumps({"a": 1}), "no Parquet file"),
        ("a.arrow", pickle.dumps({"a": 1}), "no Arrow file"),
        ("a.jsonl", ROW.encode("utf-16")[:-1], "marked as UTF-16 and is no such text"),
        ("a.csv", "prompt,completion\rq,a\r", "lines end with a carriage return alone"),
        ("a.csv", b"prompt,completion\nq,\xff\n", "line 2 is no UTF-8"),
        ("a.json", b'["\xff"]', "line 1 is no UTF-8"),
        ("a.json", "[" * 100_000, "recursion"),
        ("a.jsonl", "", "no records"),
        ("a.csv", "prompt,completion\n", "no records"),
        ("a.csv", "prompt,completion, prompt\na,b,c\n", "'prompt' stands twice"),
        ("a.csv", 'prompt,completion\nq,"a\n' + "q,a\n" * 500, "quote that opens in line 2 is not closed by line 502"),
        ("a.csv", 'prompt,completion\nq,"a\n' + "q,a\n" * 9 + 'q,"b"\n', "opens in line 2 is not closed by line 12"),
    ],
)
def test_what_is_no_such_file_is_named(name: str, data: bytes | str, wrong: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=wrong) as refused:
        look(written(tmp_path / name, data))
    assert len(str(refused.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(("name", "wrong"), [("a.jsonl", "line 1 has over 8 MB"), ("a.csv", "line 1 has over 8 MB"),
                                             ("a.json", "over 64 MB")])  # fmt: skip
def test_a_sparse_file_is_not_read_to_its_end(name: str, wrong: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(BadInput, match=wrong):
        look(tmp_path / name)


@pytest.mark.heavy
def test_a_document_of_many_lists_ends_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "CHILD_BYTES", 200 * MB)
    path = written(tmp_path / "lists.json", "[" + "[]," * 4_000_000 + "[]]")
    with pytest.raises(OverLimits, match=r"200 MB of memory.*write the rows as JSONL"):
        look(path)


def test_a_byte_order_mark_and_empty_lines_are_nothing_and_deep_or_broken_lines_are_counted(tmp_path: Path) -> None:
    deep, nul = "[" * 100_000 + "\n", "\0\0" + ROW
    path = written(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + (ROW + "\n" + ROW + deep + nul).encode())
    rows, problems, end = taken(path)
    assert len(rows) == 2 and [problem.number for problem in problems] == [3, 4] and end.lines == 4


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", '{"a": [NaN]}', '{"a": -1e999}'])
def test_a_number_that_is_none_makes_no_row(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no number in JSON"):
        strict_json(text)
    record = f'{{"prompt": "a", "completion": "b", "extra": {text}}}'
    for name, data in (("a.jsonl", record), ("a.json", f"[{record}, {ROW}]")):
        values = [r.value for r in text_records(written(tmp_path / name, data))]
        rows, problems = convert(values, "prompt/completion", {})
        assert [problem.number for problem in problems] == [1] and len(rows) == (name == "a.json")


def test_a_label_that_is_not_finite_is_no_answer() -> None:
    for value in (float("nan"), float("inf")):
        rows, problems = convert([{"prompt": "a", "completion": value}], "prompt/completion", {})
        assert not rows and "no number" in problems[0].reason


def test_a_csv_record_of_thousands_of_lines_counts_as_all_of_them(tmp_path: Path) -> None:
    swallowed = '"' + "q,a\n" * 3_000 + '"'
    path = written(tmp_path / "a.csv", "prompt,completion\n" + "q,a\n" * 1_000 + f"q,{swallowed}\n" + "q,a,more\n")
    rows, problems, end = taken(path)
    assert len(rows) == 1_000 and [problem.weight for problem in problems] == [3_001, 1] and end.lines == 4_002
    assert "a quote may be missing in line 1002" in problems[0].reason and "3 cells for 2" in problems[1].reason


COLUMNS = "prompt", "a, b or c"
RECORDS = [{COLUMNS[0]: f"Größe {n}?", COLUMNS[1]: f"{n}; {n} | 你好\tx"} for n in range(3)]


def as_table(delimiter: str, *, mark: str = "", encoding: str = "utf-8", end: str = "\n") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(
        [COLUMNS, *(record.values() for record in RECORDS)]
    )
    return (mark + text.getvalue()).encode(encoding)


def as_json(*, indent: int | None = None, lines: bool = False) -> bytes:
    return ("\n".join(map(json.dumps, RECORDS)) if lines else json.dumps(RECORDS, indent=indent)).encode()


SAVED = {
    "comma": ("a.csv", as_table(",")),
    "as Excel does in Germany": ("a.csv", as_table(";", encoding="utf-8-sig", end="\r\n")),
    "with the line that Excel reads": ("a.csv", as_table(";", mark="sep=;\r\n", end="\r\n")),
    "Excel's Unicode text": ("a.csv", as_table("\t", encoding="utf-16")),
    "empty lines before the header": ("a.csv", as_table("|", mark="\n \n")),
    "tsv": ("a.tsv", as_table("\t")),
    "lines": ("a.jsonl", as_json(lines=True)),
    "lines in UTF-16": ("a.jsonl", as_json(lines=True).decode().encode("utf-16")),
    "a document": ("a.json", as_json()),
    "a document in UTF-16": ("a.json", as_json(indent=2).decode().encode("utf-16")),
    "a document that is named as lines": ("a.jsonl", b"\xef\xbb\xbf" + as_json()),
    "one of many lines": ("a.jsonl", as_json(indent=2)),
    "lines that are named as a document": ("a.json", as_json(lines=True)),
    "a list in an object": ("a.json", json.dumps({"data": RECORDS}).encode()),
}


@pytest.mark.parametrize("saved", SAVED)
def test_the_same_records_are_read_however_a_program_saved_them(saved: str, tmp_path: Path) -> None:
    name, data = SAVED[saved]
    assert [record.value for record in text_records(written(tmp_path / name, data))] == RECORDS


@pytest.mark.parametrize("narrow", ["lines", "tsv"])
def test_a_record_of_a_wide_encoding_takes_the_bytes_that_its_file_has(narrow: str, tmp_path: Path) -> None:
    name, data = SAVED[narrow]
    wide = data.decode().encode("utf-16")
    sizes = [[r.bytes for r in text_records(written(tmp_path / name, one))] for one in (data, wide)]
    assert sizes[1] == [2 * size for size in sizes[0]]


def test_each_record_is_taken_by_its_own_format_and_named_by_its_own_file(tmp_path: Path) -> None:
    talk = {"messages": [{"role": "user", "content": "3+3?"}, {"role": "assistant", "content": "6"}]}
    (tmp_path / "in").mkdir()
    written(tmp_path / "a.json", '{"made": "today"}')
    written(tmp_path / "b.jsonl", ROW * 8)
    written(tmp_path / "in" / "c.jsonl", (json.dumps(talk) + "\n") * 9 + ROW.replace("4", ""))
    assert [str(problem) for problem in look(tmp_path).inspection.problems] == [
        "a.json, record 1: prompt is missing", "in/c.jsonl, record 10: completion is empty",
    ]  # fmt: skip
    rows, problems, _ = taken(tmp_path)
    assert [row.answer for row in rows] == ["4"] * 8 + ["6"] * 9
    assert [(problem.file, problem.number) for problem in problems] == [("a.json", 1), ("in/c.jsonl", 10)]


@pytest.mark.heavy
def test_columns_of_a_later_file_may_be_mapped_and_those_of_none_are_refused(tmp_path: Path) -> None:
    """A folder of several formats, in which the first records need no mapping."""
    written(tmp_path / "a.jsonl", ROW * 250)
    written(tmp_path / "b.jsonl", json.dumps({"ask": "5+5?", "tell": "10"}) + "\n")
    found, mapping = find_files(tmp_path), {"user": "ask", "assistant": "tell"}
    assert inspect_files(found.files, found.bytes, mapping, 1_000).inspection.status == "READY"
    rows = [one for one in rows_of(found.files, mapping, 1_000, MB) if isinstance(one, TrainingRow)]
    assert (len(rows), rows[0].answer, rows[-1].answer) == (251, "4", "10")
    with pytest.raises(BadInput, match=r" has no column 'told'; its columns: prompt, completion, ask, tell$"):
        list(rows_of(found.files, {"user": "ask", "assistant": "told"}, 1_000, MB))


TICKETS = [("Where is it?", "On its way, I\nthink"), ('It said "soon",\nthen nothing', "Sorry")]


def tickets(*columns: str, delimiter: str = ",", mark: str = "", end: str = "\n") -> str:
    cells = {"question": [asked for asked, _ in TICKETS], "answer": [answer for _, answer in TICKETS], "nr": ["1", "2"]}
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(
        [columns, *zip(*(cells[name.strip().lower()] for name in columns), strict=True)]
    )
    return mark + text.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", tickets("question", "answer", mark="\ufeff")),
        ("b.csv", tickets("Nr", " ANSWER ", "Question", delimiter=";", mark="\ufeff", end="\r\n")),
        ("c.tsv", tickets("answer", "Question", delimiter="\t")),
        (
            "d.jsonl",
            "\n".join(json.dumps({"Answer ": told, "id": 1, "QUESTION": asked}) for asked, told in TICKETS),
        ),
        ("e.parquet", ""),
    ],
)
def test_questions_and_answers_are_taken_whatever_the_kind_of_file_and_the_order(
    name: str, data: str, tmp_path: Path
) -> None:
    asked, answers = ([*column] for column in zip(*TICKETS, strict=True))
    path = written(tmp_path / name, data) if data else table(tmp_path / name, {"answer": answers, "Question": asked})
    rows, problems, end = taken(path)
    assert [(row.prompt[-1]["content"], row.answer) for row in rows] == TICKETS
    assert not problems and (end.format, look(path).inspection.mapping) == ("question/answer", {})


def test_a_file_without_a_header_is_told_that_its_first_line_was_taken_as_one(tmp_path: Path) -> None:
    long = "Where does the parcel stay so long? " * 9
    path = written(tmp_path / "a.csv", f"{long},On its way\nAnd this one?,Sorry\n")
    sentence = unclear(look(path).inspection)
    assert sentence.endswith("(the first line is taken as their names)") and long[:60] in sentence
    assert long[:61] not in sentence, "a cell is no name, and may be of any length"
    with pytest.raises(Stopped, match=r"^cannot tell which of the columns Where does"):
        taken(path)


def test_it_is_known_whether_a_limit_left_records_unread(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", ROW * 5)
    assert [taken(path, limit)[2].more for limit in (4, 5, 6)] == [True, False, False]


# Which files


def test_a_folder_gives_its_own_files_of_rows_and_nothing_hidden_or_linked(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "in").mkdir(parents=True)
    (folder / ".ssh").mkdir()
    secret = written(tmp_path / "secret.jsonl", ROW)
    for name in ("b.jsonl", "in/a.csv", ".ssh/key.json", ".hidden.jsonl", "id_rsa", "notes.txt", "dataset_info.json"):
        written(folder / name, ROW)
    (folder / "link.jsonl").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "fifo.jsonl")
    found = find_files(folder)
    assert [path.relative_to(folder).as_posix() for path in found.files] == ["b.jsonl", "in/a.csv"]
    assert found.links_left_out == 1 and found.bytes == 2 * len(ROW)
    digest = digest_of(found.files)
    written(folder / "in/a.csv", ROW + ROW)
    assert digest_of(found.files) != digest


def test_a_folder_of_the_system_is_no_data_set_and_a_folder_in_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("/etc", "/proc", "/dev", "/usr", "/var", "/tmp", "/usr/../etc"):
        with pytest.raises(BadInput, match=f"^{name} holds far more than rows; name the folder"):
            find_files(Path(name))
    written(tmp_path / "data.jsonl", ROW)
    with pytest.raises(BadInput, match="far more than rows"):
        find_files(tmp_path)
    (tmp_path / "in").mkdir()
    written(tmp_path / "in" / "data.jsonl", ROW)
    assert find_files(tmp_path / "in").bytes == len(ROW)


@pytest.mark.heavy
def test_whole_machines_pipes_devices_and_other_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    (tmp_path / "home" / "me").mkdir(parents=True)
    (tmp_path / "root").symlink_to("/")
    os.mkfifo(tmp_path / "fifo.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "many").mkdir()
    for number in range(1_001):
        (tmp_path / "many" / f"{number}.jsonl").touch()
    (tmp_path / "deep" / "/".join("abcdefghij")).mkdir(parents=True)
    (tmp_path / "huge.jsonl").touch()
    os.truncate(tmp_path / "huge.jsonl", 1 << 40)
    for name, wrong in (
        ("/", "far more than rows"), ("root", "far more than rows"), ("home", "far more"), ("home/me", "far more"),
        ("fifo.jsonl", "not a regular"), ("zero.jsonl", "not a regular"), ("/etc/passwd", "no file of rows"),
        ("many", "1,001 files of rows; at most 1,000"), ("deep", "over 8 folders deep"), ("huge.jsonl", "1,100 GB"),
        ("missing.jsonl", "No such file"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=wrong):
            find_files(tmp_path / name)
