"""Nothing outside is looked at for another agent before its person allowed it: every spelling at every tool, watched by
a stand-in of the hub, by Python's audit events and by what asks the disk whether a name is there."""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, SimpleNamespace
from typing import Any, get_args

import pytest

pytest.importorskip("mcp", reason="pip install 'tunesmith[mcp]'")

from pydantic import BaseModel

from tests.agent.test_mcp import Person, talk
from tests.fixtures.hub_stand_in import COMMIT, MODEL, Hub, hub_of
from tests.fixtures.stored_runs import finished_run
from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.commands.places import may_name_a_place, places
from tunesmith.agent.mcp_forms import can_ask
from tunesmith.agent.queries.facts import Query, RunName
from tunesmith.agent.queries.registry import REQUESTS
from tunesmith.tools.pipeline import catalog

OUTSIDE = "outside-here"
"""Part of every path that nothing may be looked for at."""
_EVENTS = ("open", "os.listdir", "os.scandir", "os.chdir", "socket.connect", "socket.getaddrinfo")
_looks: list[str] | None = None


def _look(what: str, place: object) -> None:
    if _looks is None or isinstance(place, int):
        return
    text = os.fsdecode(place) if isinstance(place, str | bytes | os.PathLike) else repr(place)
    where = text if what.startswith("socket") else posixpath.normpath(posixpath.join(Path.cwd(), text))
    if "__editable__" in where:  # how an editable install is imported
        return
    if what.startswith("socket") or OUTSIDE in where or where in ("~root", "/root", "/root/x", "/etc/passwd"):
        _looks.append(f"{what} {where}")


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _EVENTS and _looks is not None:
        _look(event, arguments[1 if event == "socket.connect" else 0] if arguments else "")


@pytest.fixture(scope="module")
def _audited() -> None:
    sys.addaudithook(_audit)  # for good: there is no taking it back, so it does nothing while nobody watches


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_of(make_tiny_model(tmp_path / "on-the-hub")) as made:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", made.address)
        template = made.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield made


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the server was started in: each spelling of a path names what is there."""
    folder = make_tiny_model(tmp_path / OUTSIDE / "banana").parent
    for name in ("rows.jsonl", "behaviour.yaml", "%2Fetc%2Fpasswd", "C:\\rows.jsonl", " rows", "deepseek-r1-7b"):
        (folder / name).write_text("{}\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def looks(_audited: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every look at something outside, as it is taken."""
    for entry in catalog.STAGES:
        entry.load()  # as a module is imported, pydantic looks for its source, and so at every folder above
    for module, name in ((os, "stat"), (os, "lstat"), (os, "access"), (posixpath, "expanduser")):
        usual = getattr(module, name)

        def watched(path: Any, *args: Any, name: str = name, usual: Any = usual, **more: Any) -> Any:
            if name != "expanduser" or str(path).startswith("~"):
                _look(name, path)
            return usual(path, *args, **more)

        monkeypatch.setattr(module, name, watched)
    global _looks
    _looks = []
    yield _looks
    _looks = None


def at_each_field(here: Path) -> list[str]:
    """Put into every text of every tool, in every shape."""
    return [f"https://huggingface.co/{MODEL}", str(here / "banana"), "~root", "rows.jsonl"]


def where_a_place_may_be(here: Path) -> list[str]:
    """Put wherever a place may be named: what looks like none, as well."""
    return [
        MODEL, f"HTTPS://HuggingFace.co/{MODEL}", f"http://hf.co/{MODEL}/tree/main", f"huggingface.co/{MODEL}",
        f"https://www.huggingface.co/{MODEL}?x=1", f"https://a@huggingface.co:443/{MODEL}", f"hub:{MODEL}",
        f"hf://{MODEL}", f"https%3A%2F%2Fhuggingface.co%2F{MODEL}", "attacker/Qwen3-8B", COMMIT, "main",
        f"{here}/", f"file://{here}/banana", "./banana", f"../{OUTSIDE}/banana", "banana/", ".", "..", "~", "~/banana",
        "~root/x", "~nobody-here/x", "~qwen3-8b", "banana", "behaviour.yaml", "deepseek-r1-7b", " rows",
        "C:\\rows.jsonl", "\\\\server\\share", "%2Fetc%2Fpasswd", "/etc/passwd", "x" * 300,
        f"/{'y' * 300}", "z" * 5_000, "a\0b",
    ]  # fmt: skip


Calls = Iterator[tuple[str, dict[str, Any]]]


def of_questions(name: str) -> Calls:
    """A name in each text of every kind of question, those that no agent may put among them."""
    for kind, request in REQUESTS.items():
        known = request.model_fields
        needed = {one: [name] if one == "fields" else name for one, of in known.items() if of.is_required()}
        for field, of in known.items():
            shape = {"fields": [name], "values": {name: name}}.get(field, name)
            if shape != name or str in (of.annotation, *get_args(of.annotation)):
                yield "ask", {"question": {"kind": kind, **needed, field: shape}}


def of_fields(name: str) -> Calls:
    """A name in each field of each stage; where it may be a place, within lists and objects as well."""
    for stage, entry in catalog.BY_NAME.items():
        for field, of in entry.load().request.model_fields.items():
            deep = [[name], ["demo", name], [[name]], {"why": [name]}, {name: 1}] if may_name_a_place(of) else []
            yield from (("plan", {"stage": stage, "fields": {field: shape}}) for shape in (name, *deep))
    yield from (("plan", {"stage": "base", key: value}) for key, value in (("run", name), ("fields", {name: name})))
    yield from (("compare", {"run": name}), ("compare", {"arms": [name, name]}), ("query", {"select": name}))
    yield from (("get_step", {"step": name}), ("stop", {"step": name}), ("start", {"plan_hash": name}))
    yield from (("fits", {"model": "8b", "card": name}), ("plan", {"stage": name}))


def of_places(name: str) -> Calls:
    """A name for a place, at each tool that takes one."""
    yield from (("fits", {"model": name}), ("ask", {"question": {"kind": "file_of_rows", "path": name}}))
    for stage, entry in catalog.BY_NAME.items():
        for field, of in entry.load().request.model_fields.items():
            if may_name_a_place(of):
                yield "plan", {"stage": stage, "fields": {field: [name] if field == "suites" else name}}
    for changes in ({"base": name}, {"rows_from": name}, {"settings": f"baseline.suites={name}"}):
        yield "plan_fine_tune", {"behaviour": "demo", "changes": changes}
    yield "plan_fine_tune", {"behaviour": name}
    yield "plan", {"stage": "base", "fields": {"model_name_or_path": name}}
    yield "plan", {"stage": "base", "fields": {"model": "Qwen/Qwen3-8B", "model_revision": name}}


@pytest.mark.heavy
def test_no_spelling_at_no_tool_has_anything_looked_at_before_a_yes(
    tmp_path: Path, hub: Hub, here: Path, looks: list[str]
) -> None:
    finished_run(tmp_path / "home")
    person = Person(allow=False)
    everywhere, more = at_each_field(here), where_a_place_may_be(here)
    made = [call for name in everywhere for of in (of_questions, of_fields) for call in of(name)]
    made += [call for name in (*everywhere, *more) for call in of_places(name)]
    of_our_tables = {f"stat {here}/{name}" for name in ("demo", "8b", "Qwen/Qwen3-8B", "owner/model")}
    wrong = list[str]()

    async def calls(client: Any) -> None:
        for tool, arguments in made:
            looks.clear()
            said = str((await client.call_tool(tool, arguments)).content)
            if {*looks} - of_our_tables or hub.asked or "unexpected" in said:
                wrong.append(f"{tool} {str(arguments)[:120]}: {looks[:3]} {hub.asked[:1]} {said[:120]}")
                hub.asked.clear()

    talk(tmp_path / "home", calls, person=person)
    assert not wrong, "\n".join(wrong[:40])
    assert len(made) > 1_200 and len(person.shown) > 400
    assert max(map(len, person.shown)) < 2_200, "what is allowed is read as a whole"


OF_OURS: list[tuple[str, dict[str, Any]]] = [
    *(("fits", {"model": name}) for name in ("8b", "Qwen3-8B", "qwen3 8b", "Qwen/Qwen3-8B", "llama3", "bundled", "")),
    *(("plan", {"stage": "base", "fields": {"model": name}}) for name in ("bundled", "bundled-0.5b", "Qwen/Qwen3-8B")),
    ("plan", {"stage": "baseline", "fields": {"suites": ["demo", "general", "tools"], "judge": "bundled-driver"}}),
    ("plan", {"stage": "generate", "fields": {"behaviour": "demo", "rows": 40}}),
    ("plan", {"stage": "evaluate", "fields": {"system_prompt": "Answer in /etc/passwd's form", "arm": "prompted"}}),
    ("plan", {"stage": "deploy", "fields": {"accept": "5/6 of them are fine, see ~/notes"}}),
    ("plan", {"stage": "train", "fields": {"lora_rank": "auto", "lr": "0.0002"}}),
]


@pytest.mark.heavy
def test_what_our_own_tables_answer_and_what_names_no_place_is_asked_about_nobody(
    tmp_path: Path, hub: Hub, here: Path, looks: list[str]
) -> None:
    finished_run(tmp_path / "home")
    person = Person(allow=False)

    async def calls(client: Any) -> None:
        for tool, arguments in OF_OURS:
            looks.clear()
            answer = await client.call_tool(tool, arguments)
            assert "nobody allowed" not in str(answer.content), arguments
            names = [*arguments.get("fields", {"": arguments.get("model")}).values()]
            named = {one for name in names for one in (name if isinstance(name, list) else [name])}
            named = {f"stat {here}/{one}" for one in (*named, "owner/model")}  # that stands for any in a forecast
            assert set(looks) <= named, "no more than whether something of that very name lies here"

    talk(tmp_path / "home", calls, person=person)
    assert person.shown == [] and hub.asked == []


@pytest.mark.heavy
def test_after_a_yes_it_is_looked_at_and_a_hub_model_is_planned_at_its_commit(
    tmp_path: Path, hub: Hub, here: Path, looks: list[str]
) -> None:
    """The watch sees what is there to see; and a question names every name, those that are known among them."""
    finished_run(tmp_path / "home")
    person = Person(allow=True)

    async def calls(client: Any) -> Any:
        for tool, arguments in (
            ("fits", {"model": "banana"}), ("fits", {"model": "~/banana"}),
            ("plan", {"stage": "base", "fields": {"model": str(here / "banana")}}),
            ("plan", {"stage": "generate", "fields": {"behaviour": "behaviour.yaml"}}),
        ):  # fmt: skip
            looks.clear()
            await client.call_tool(tool, arguments)
            assert any(look.startswith(("open ", "os.scandir ")) for look in looks), arguments
        fields = {"model": f"https://huggingface.co/{MODEL}", "revision": ""}
        plan = await client.call_tool("plan", {"stage": "base", "fields": fields})
        await client.call_tool("plan", {"stage": "base", "fields": {"model": "Qwen/Qwen3-8B", "revision": "main"}})
        return plan

    plan = talk(tmp_path / "home", calls, person=person)
    assert hub.asked and plan.structured_content["fields"]["revision"] == COMMIT, plan.content
    assert "“Qwen/Qwen3-8B”, “main”" in person.shown[-1]


def test_a_price_by_the_list_alone_starts_nothing(tmp_path: Path) -> None:
    """No hub was asked for it, so no commit is agreed to: a step that cannot be done is not begun."""
    person = Person(start=True)

    async def calls(client: Any) -> Any:
        plan = await client.call_tool("plan", {"stage": "base", "fields": {"model": "Qwen/Qwen3-8B"}})
        return await client.call_tool("start", {"plan_hash": plan.structured_content["plan_hash"]})

    refused = talk(tmp_path / "home", calls, person=person)
    assert refused.is_error and "is not a commit; give the 40 hex digits" in str(refused.content)


@table("person", [Person(allow=False), None])
def test_without_leave_a_price_names_the_command_to_type_and_looks_at_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, person: Person | None
) -> None:
    monkeypatch.setattr("tunesmith.agent.mcp.propose_step", lambda *_: pytest.fail("it looked"))

    async def calls(client: Any) -> list[Any]:
        fields = [{"model": name} for name in ("somebody/private-7b", "/etc", "../elsewhere")]
        return [await client.call_tool("plan", {"stage": "base", "fields": one}) for one in fields]

    for refused in talk(tmp_path / "home", calls, person=person):
        assert refused.is_error and "nobody allowed to look" in str(refused.content)
        assert "a person types `tunesmith base --model " in str(refused.content)


def test_one_known_name_lets_no_other_pass(tmp_path: Path) -> None:
    person = Person(allow=False)

    async def calls(client: Any) -> Any:
        fields = {"suites": ["demo", "/etc/passwd"], "judge": "bundled-driver"}
        return await client.call_tool("plan", {"stage": "baseline", "fields": fields})

    assert talk(tmp_path / "home", calls, person=person).is_error
    assert person.shown == ["May tunesmith look at “demo”, “/etc/passwd”, “bundled-driver”, here or on the hub?"]


@table("names", [["a/" + "b" * 1_999], ["a/b"] * 700])
def test_more_names_than_a_person_reads_are_not_asked_about(tmp_path: Path, names: list[str]) -> None:
    person = Person(allow=True)

    async def calls(client: Any) -> Any:
        return await client.call_tool("plan", {"stage": "baseline", "fields": {"suites": names}})

    refused = talk(tmp_path / "home", calls, person=person)
    assert refused.is_error and "2,000 can be asked about; name fewer" in str(refused.content) and not person.shown


@table("hint", [str, list[str], dict[str, int], str | None, object, Any, Path, bytes])
def test_a_field_of_a_new_question_or_stage_may_name_a_place_until_it_is_declared_to_name_none(hint: Any) -> None:
    new = type("New", (Query,), {"__annotations__": {"where": hint}, "__module__": __name__})
    assert may_name_a_place(new.model_fields["where"])
    assert places(new, {"where": ["x", {"y": [["z"]]}], "run": "r"}) == ["x", "y", "z"]


@table("hint", [RunName, tuple[RunName, ...], RunName | None, int, bool | float, NoneType])
def test_a_name_of_records_and_a_number_name_none(hint: Any) -> None:
    new: type[BaseModel] = type("New", (Query,), {"__annotations__": {"where": hint}, "__module__": __name__})
    assert places(new, {"where": "x"}) == []


def test_questions_that_name_a_place_are_put_by_no_agent() -> None:
    """By their declarations; what a new kind takes is looked at here once more."""
    of_places = {kind for kind, one in REQUESTS.items() if any(map(may_name_a_place, one.model_fields.values()))}
    assert of_places == {"file_of_rows", "fits", "price", "case", "row"}
    declared = {
        f"{stage}.{name}"
        for stage, entry in catalog.BY_NAME.items()
        for name, field in entry.load().request.model_fields.items()
        if may_name_a_place(field)
    }
    assert declared == {
        "base.model", "base.revision", "baseline.suites", "baseline.judge", "import.source", "import.mapping",
        "import.behaviour", "import.split", "generate.behaviour", "critique.suites", "evaluate.behaviour",
        "evaluate.judge",
    }  # fmt: skip


@table(("form", "url", "can"), [(True, None, True), (None, None, True), (None, True, False), (True, True, True)])
def test_a_client_without_forms_is_one_that_cannot_ask(form: bool | None, url: bool | None, can: bool) -> None:
    capabilities = SimpleNamespace(elicitation=SimpleNamespace(form=form, url=url))
    assert can_ask(SimpleNamespace(client_capabilities=capabilities)) is can  # type: ignore[arg-type]
    assert not can_ask(SimpleNamespace(client_capabilities=SimpleNamespace(elicitation=None)))  # type: ignore[arg-type]
