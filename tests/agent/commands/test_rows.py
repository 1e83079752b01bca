"""Rows looked at by a person: one key a row, or a page of this machine; every mark is kept at once and counts."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.own_rows import own_row
from tunesmith.agent.cli import main
from tunesmith.agent.commands.first_look import FirstLook, Marked
from tunesmith.agent.commands.local_page import _CONNECTIONS_MAX
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.review import Review, TerminalReview
from tunesmith.agent.commands.review_web import ReviewServer
from tunesmith.agent.commands.rows_view import review_of
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.files import seal
from tunesmith.memory.marks import marks_of
from tunesmith.memory.records import Artifact, TrainingRow, Verdict
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Estimate, Plan
from tunesmith.tools.data.behaviour import spec_of, write_behaviour
from tunesmith.tools.pipeline.workspace import Decision

HOSTILE = "<img src=x onerror=alert(1)></script>\x1b[2J\u202e"
SAID = {
    "name": "mood",
    "say": "the mood of a note",
    "what": "one line of JSON with the key mood, happy or sad",
    "labels": {"happy": "glad", "sad": "unhappy"},
    "examples": [
        {"prompt": "what a day!", "answer": '{"mood": "happy"}'},
        {"prompt": "it rains again", "answer": '{"mood": "sad"}'},
        {"prompt": "cake for all", "answer": '{"mood": "happy"}'},
    ],
}


def row(number: int, message: str, **attributes: Any) -> TrainingRow:
    answer = [{"role": "assistant", "content": '{"mood": "sad"}'}]
    return TrainingRow(
        f"w{number:05d}", "generated", [{"role": "user", "content": message}], answer, RowAttributes(**attributes)
    )


ROWS = [
    row(0, "plain and fine", of_kind=1.0),
    row(1, f"doubted {HOSTILE}", of_kind=0.2),
    row(2, "late", attempt=2, of_kind=1.0),
    row(3, "dropped already", problem="reading: mood was drawn as 'sad' and read as 'happy'"),
    TrainingRow("r0", "rehearsal", [{"role": "user", "content": "hi"}], [{"role": "assistant", "content": "ho"}]),
]


def made_rows(tmp_path: Path, said: dict[str, Any]) -> Store:
    """A home whose run has the rows, of a behaviour that was described so."""
    made = Store(tmp_path / "home")
    folder = write_behaviour(spec_of(said, "test"), made.home / "behaviours")  # in the home, as `teach` does
    run = made.new_run("test")
    step = made.propose(run, "generate", plan_hash="h")
    made.add_rows(run, step, ROWS)
    (tmp_path / "rows").mkdir()
    sha = seal(tmp_path / "rows")
    made.add_artifact(
        Artifact("", run, step, "rows", tmp_path / "rows", str(sha), 1, meta={"behaviour": str(folder), "rows": 5})
    )
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = made_rows(tmp_path, SAID)
    yield made
    made.close()


def pressed(review: Review, keys: str, lines: list[str]) -> list[str]:
    said: list[str] = []
    given, told = iter(keys), iter(lines)
    TerminalReview(review, lambda: next(given, ""), lambda question: next(told), said.append).go()
    return said


def test_the_most_suspicious_that_would_be_trained_on_come_first(store: Store) -> None:
    review = review_of(store)
    assert [s.row.row_id for s in review.suspects] == ["w00001", "w00002", "w00000", "w00003"]
    assert "20%" in review.suspects[0].why and "attempt 2" in review.suspects[1].why
    with pytest.raises(NotFound):
        review_of(Store(store.home.parent / "empty"))


def test_each_key_does_what_it_says_and_is_kept_at_once(store: Store) -> None:
    said = pressed(review_of(store), "dxr e/kq", ["1", '{"mood": "happy"}', "dropped already"])
    marks = {mark.row_id: (mark.decision, mark.answer) for mark in marks_of(store, "mood")}
    happy, sad = '{"mood": "happy"}', '{"mood": "sad"}'
    assert marks == {"w00001": ("drop", sad), "w00002": ("relabel", happy), "w00003": ("edit", happy)}
    assert any("'x' is no key here" in line for line in said)
    again = review_of(store)
    assert again.answer(again.suspects[1]) == happy and again.marks["w00001"].decision == "drop", "it is taken up again"


def test_one_key_says_which_label_is_right(store: Store) -> None:
    said = pressed(review_of(store), "21bb2q", [])
    assert any("right is: 1 happy · 2 sad" in line for line in said)
    marks = {mark.row_id: (mark.decision, mark.answer) for mark in marks_of(store, "mood")}
    assert marks == {"w00001": ("keep", '{"mood": "sad"}'), "w00002": ("relabel", '{"mood": "happy"}')}


@pytest.mark.parametrize(
    ("key", "line", "why"),
    [
        ("e", "hurray", "breaks a rule"),
        ("e", " ", "no answer"),
        ("r", "9", "none of 1 to 2"),
        ("/", "zzz", "no row holds"),
    ],
)
def test_what_cannot_be_changes_nothing(store: Store, key: str, line: str, why: str) -> None:
    said = pressed(review_of(store), key, [line])
    assert any(why in told for told in said) and marks_of(store, "mood") == []


def test_a_closed_stdin_ends_the_review_and_it_is_recorded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setenv("TUNESMITH_HOME", str(store.home))
    monkeypatch.setattr("sys.stdin", io.StringIO("k\nd\n"))
    assert main(["rows", "review", "--json"]) == 0
    assert [mark.decision for mark in marks_of(store, "mood")] == ["keep", "drop"]
    events = store.read("SELECT data FROM events WHERE event = 'rows.reviewed'")
    assert [json.loads(event["data"])["marks"] for event in events] == [{"keep": 1, "drop": 1}]


def test_show_and_export_are_documents(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(store.home))
    assert main(["rows", "--json", "--limit", "2"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["row_id"] for one in shown["shown"]] == ["w00001", "w00002"] and shown["rows"] == 4
    assert shown["balance"] == {"mood": {"happy": 0, "sad": 3}}, "of what would be trained on"
    assert main(["rows", "show"]) == 0
    assert "\x1b" not in (told := capsys.readouterr().out) and "\u202e" not in told
    target = store.home.parent / "out.jsonl"
    assert main(["rows", "export", str(target), "--json"]) == 0
    assert "w00003" not in target.read_text() and target.read_text().count("\n") == 4, "before critique: no known fault"
    capsys.readouterr()
    assert target.stat().st_mode & 0o777 == 0o600, "rows are private, whatever the umask"
    [first] = [row for row in store.rows("s1") if row.row_id == "w00000"]
    store.judge_rows("s1", [replace(first, verdict=Verdict("keep"))])
    assert main(["rows", "export", str(target), "--json"]) == 2 and target.read_text().count("\n") == 4
    capsys.readouterr()
    assert main(["rows", "export", str(target), "--force", "--json"]) == 0
    [line] = [json.loads(text) for text in target.read_text().splitlines()]
    assert line["id"] == "w00000" and [turn["role"] for turn in line["messages"]] == ["user", "assistant"]
    assert main(["rows", "show", "--run", "r9"]) == 2
    for args, wrong in (
        (["--limit", "-5"], "not -5"),
        (["--limit", "0"], "not 0"),
        (["--kind", "nosuch"], "there are: keep 1"),
    ):
        assert main(["rows", "show", *args]) == 2 and wrong in capsys.readouterr().err
    assert main(["rows", "import", str(target), "--limit", "0"]) == 2 and "limit" in capsys.readouterr().err


def test_rows_are_printed_for_a_dash(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(store.home))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main(["rows", "export", "rows.jsonl"]) == 0
    written = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").unlink()
    capsys.readouterr()
    assert main(["rows", "export", "-"]) == 0
    printed = capsys.readouterr().out
    lines = [json.loads(line) for line in written.splitlines()]
    assert [json.loads(line) for line in printed.splitlines()] == lines
    assert "\u202e" in written and not {"\x1b", "\u202e"} & {*printed}, "what a terminal might obey is escaped"
    assert main(["rows", "export", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": "-", "rows": len(lines), "lines": lines}
    assert sorted(tmp_path.iterdir()) == before
    assert main(["report", "-o", "-"]) == 2 and "'-' names no file" in capsys.readouterr().err


# The page


@pytest.fixture
def page(store: Store) -> Iterator[ReviewServer]:
    server = ReviewServer(review_of(store))
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def asked(page: ReviewServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", page.server_address[1], timeout=10)
    given = {"Content-Type": "application/json"} if body is not None else {}
    text = body if isinstance(body, str) or body is None else json.dumps(body)
    connection.request(method, path, text, {**given, **headers})
    answer = connection.getresponse()
    told = answer.read().decode()
    connection.close()
    return answer.status, (json.loads(told) if "json" in answer.headers["Content-Type"] else told), answer.headers


def test_the_page_is_for_this_machine_and_its_token_alone(page: ReviewServer) -> None:
    assert page.server_address[0] == "127.0.0.1" and len(page.token) >= 32
    own = f"/{page.token}/"
    status, text, headers = asked(page, "GET", own)
    assert status == 200 and "<main" in text and headers["Cache-Control"] == "no-store"
    policy = headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy, "no other site frames its keys"
    other_end = "y" if page.token.endswith("x") else "x"
    for path in (
        "/",
        "/rows",
        f"/{page.token[:-1]}{other_end}/rows",
        "//rows",
        f"{own}../rows",
    ):
        assert asked(page, "GET", path)[0] == 404
    port = page.server_address[1]
    for host in (
        "evil.example",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        f"127.0.0.1:{port}@evil.com",
        f"a.localhost:{port}",
    ):
        assert asked(page, "GET", own, Host=host)[0] == 404, "another name for this address is none of ours"
    assert asked(page, "GET", own, Host=f"localhost:{port}")[0] == 200


def test_rows_reach_the_page_as_data_and_never_as_markup(page: ReviewServer) -> None:
    own = f"/{page.token}/"
    assert "onerror" not in asked(page, "GET", own)[1], "rows are not in the page itself"
    _, told, headers = asked(page, "GET", f"{own}rows")
    assert headers["Content-Type"] == "application/json" and headers["X-Content-Type-Options"] == "nosniff"
    shown = "<img src=x onerror=alert(1)></script>⟨U+001B⟩[2J⟨U+202E⟩"
    assert told["rows"][0]["message"] == f"doubted {shown}" and "innerHTML" not in page.page
    assert told["rows"][0]["title"].startswith("w00001: ")


def test_what_hides_is_spelled_out_on_the_page_and_comes_back_as_it_was(page: ReviewServer, store: Store) -> None:
    own, hidden = f"/{page.token}/mark", '{"mood": "happy"}\u202e\u200b'
    page.review.mark(page.suspects[0], "relabel", '{"mood": "happy"}')
    page.review.marks["w00001"] = replace(page.review.marks["w00001"], answer=hidden)
    _, told, _ = asked(page, "GET", f"/{page.token}/rows")
    shown = told["rows"][0]["answer"]
    assert shown == '{"mood": "happy"}⟨U+202E⟩⟨U+200B⟩'
    page.review.spec = None  # no rule, so that only the text decides
    assert asked(page, "POST", own, {"row_id": "w00001", "decision": "edit", "answer": shown})[0] == 200
    assert page.review.marks["w00001"].answer == hidden
    odd = {"row_id": "w00001", "decision": "edit", "answer": "⟨U+0041⟩ \ud800"}
    assert asked(page, "POST", own, odd)[:2] == (400, {"error": "the answer holds half a character; take it out"})


def raw(page: ReviewServer, sent: bytes, *, reset: bool = False) -> bytes:
    """What a process gets that sends these bytes; with `reset` it does not wait for any."""
    with socket.create_connection(("127.0.0.1", page.server_address[1]), timeout=10) as line:
        line.sendall(sent)
        if reset:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return b""
        with contextlib.suppress(ConnectionError):
            return b"".join(iter(lambda: line.recv(65536), b""))
        return b""


def test_a_page_that_is_asked_for_under_two_names_is_not_there(page: ReviewServer) -> None:
    own = f"GET /{page.token}/ HTTP/1.1\r\nConnection: close\r\n".encode()
    ours, other = f"Host: 127.0.0.1:{page.server_address[1]}\r\n".encode(), b"Host: evil.example\r\n"
    for hosts in (ours + other, other + ours, ours + ours):
        assert raw(page, own + hosts + b"\r\n").startswith(b"HTTP/1.1 404")
    assert raw(page, own + ours + b"\r\n").startswith(b"HTTP/1.1 200")


def test_no_connection_makes_the_terminal_say_anything(page: ReviewServer, capfd: pytest.CaptureFixture[str]) -> None:
    host = f"Host: 127.0.0.1:{page.server_address[1]}\r\n".encode()
    own, said = f"/{page.token}/".encode(), list[str]()
    page.say = said.append
    for _ in range(5):
        raw(page, b"GET ", reset=True)
        raw(page, b"GET " + own + b"rows HTTP/1.1\r\n" + host + b"\r\n", reset=True)
    for length in (
        "²",
        "+5",
        "1_0",
        "-1",
        "0x5",
        "9999999",
        "5\r\nContent-Length: 6",
        "5\r\nTransfer-Encoding: chunked",
    ):
        head = b"POST " + own + b"mark HTTP/1.1\r\n" + host + f"Content-Length: {length}\r\n\r\n".encode("latin-1")
        assert raw(page, head + b"{}").startswith(b"HTTP/1.1 404"), length
    raw(page, b"\x00\xff\r\n\r\n")
    assert asked(page, "GET", own.decode())[0] == 200, "and it goes on"
    for _ in range(_CONNECTIONS_MAX):
        page._free.acquire()  # every thread has ended
    assert capfd.readouterr() == ("", "") and said == []


def test_a_defect_of_ours_is_said_once(page: ReviewServer, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    page.say = said.append
    monkeypatch.setattr("tunesmith.agent.commands.local_page.unexpected", lambda error: f"unexpected {error}")
    monkeypatch.setattr(page, "reads", {"rows": lambda: 1 / 0})
    for _ in range(3):
        with pytest.raises(http.client.RemoteDisconnected):
            asked(page, "GET", f"/{page.token}/rows")
    for _ in range(_CONNECTIONS_MAX):
        page._free.acquire()
    assert said == ["unexpected division by zero"]


@pytest.mark.heavy
def test_a_request_is_bounded_in_bytes_in_time_and_in_number(
    page: ReviewServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    endless = b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 60_000) for n in range(4))
    assert b"200" not in raw(page, endless)
    monkeypatch.setattr("tunesmith.agent.commands.local_page._REQUEST_S", 0.2)
    with socket.create_connection(("127.0.0.1", page.server_address[1])) as slow, contextlib.suppress(ConnectionError):
        slow.settimeout(0.05)
        for _ in range(400):  # a byte now and then does not buy more time
            slow.sendall(b"G")
            with contextlib.suppress(TimeoutError):
                if not slow.recv(100):
                    break
        else:
            pytest.fail("it reads for ever")
    monkeypatch.undo()
    address = ("127.0.0.1", page.server_address[1])
    waiting = [socket.create_connection(address, timeout=10) for _ in range(_CONNECTIONS_MAX + 5)]
    assert [line.recv(1) for line in waiting[_CONNECTIONS_MAX:]] == [b""] * 5
    for line in waiting:
        line.close()
    while (answer := raw(page, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")) == b"":
        pass  # until those that went away are seen to be gone
    assert answer.startswith(b"HTTP/1.1 404") and capfd.readouterr() == ("", "")


def test_a_mark_from_the_page_is_kept_and_a_bad_one_is_refused(page: ReviewServer, store: Store) -> None:
    own, happy = f"/{page.token}/mark", '{"mood": "happy"}'
    assert asked(page, "POST", own, {"row_id": "w00001", "decision": "relabel", "answer": happy})[:2] == (
        200, {"marks": 1, "answer": happy},
    )  # fmt: skip
    refused: list[tuple[Any, dict[str, str], int]] = [
        ({"row_id": "w9", "decision": "keep", "answer": ""}, {}, 400),
        ({"row_id": "w00001", "decision": "burn", "answer": ""}, {}, 400),
        ({"row_id": "w00001", "decision": "edit", "answer": "no form"}, {}, 400),
        ("[" * 100_000, {}, 400),
        ({"row_id": "w00001", "decision": "keep", "answer": ""}, {"Content-Type": "text/plain"}, 415),
        ("x" * 200_001, {}, 404),
    ]
    for body, headers, status in refused:
        assert asked(page, "POST", own, body, **headers)[0] == status, str(body)[:60]
    assert [(mark.row_id, mark.decision) for mark in marks_of(store, "mood")] == [("w00001", "relabel")]


def test_a_port_that_is_taken_is_told(page: ReviewServer, store: Store) -> None:
    with pytest.raises(BadInput, match="leave --port out"):
        ReviewServer(review_of(store), page.server_address[1])


# Before the first training


def critique_plan(store: Store) -> Plan:
    return Plan(stage="critique", run="r1", summary="", steps=(), request={}, estimate=Estimate(seconds=1, basis=""))


def test_rows_are_shown_once_before_they_are_judged_and_skipping_is_recorded(store: Store) -> None:
    said: list[str] = []

    def yes(plan: Plan, step: str) -> Decision:
        said.append(plan.stage)
        return Decision(True, "test")

    look = FirstLook(yes, store, Output())
    for _ in range(2):
        assert look(critique_plan(store), "s2").yes
    events = [row["event"] for row in store.read("SELECT event FROM events WHERE event LIKE 'rows.%'")]
    assert events == ["rows.shown", "rows.review_skipped"] and said == ["critique", "critique"]


def test_who_looks_through_them_marks_and_the_step_is_planned_anew(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("d\nq\n"))
    look = FirstLook(lambda plan, step: Decision(True, "test"), store, Output(), ask=lambda question: "y")
    with pytest.raises(Marked, match="1 rows were marked"):
        look(critique_plan(store), "s2")
    assert [mark.row_id for mark in marks_of(store, "mood")] == ["w00001"]
    assert look(critique_plan(store), "s3").yes, "and then it is as any other"


def test_a_persons_rows_of_which_some_will_be_blind_are_not_shown_before_they_are_judged(store: Store) -> None:
    store.add_rows("r1", "s1", [own_row(n, f"of my own {n}", '{"mood": "sad"}') for n in range(4, 8)])
    out = Output()
    with out.console.capture() as shown:
        FirstLook(lambda plan, step: Decision(True, "test"), store, out)(critique_plan(store), "s2")
    assert "late" in shown.get() and "of my own" not in shown.get()
