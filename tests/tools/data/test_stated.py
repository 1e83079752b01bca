"""What a file states as data is taken in the ways in which people write it; what is none is named with its field."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput
from tunesmith.tools.data.behaviour import is_complete, spec_of, words_of
from tunesmith.tools.data.proposal import stated_in
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.verify import verified


@table(
    ("of", "values", "means"),
    [
        ("how it is tied", {}, "how it is tied"),
        (["bowline", "clove"], {"bowline": "", "clove": ""}, ""),
        ({"bowline": "a loop", "clove": "a hitch"}, {"bowline": "a loop", "clove": "a hitch"}, ""),
        ({"means": "which knot", "values": {"bowline": "a loop"}}, {"bowline": "a loop"}, "which knot"),
    ],
)
def test_a_field_is_stated_by_its_meaning_or_by_its_values(of: Any, values: dict[str, str], means: str) -> None:
    [part] = stated_in({"fields": {"knot": of}}, "x").parts
    assert ({name: value.means for name, value in part.values.items()}, part.means) == (values, means)


@table(
    ("fields", "parts"),
    [
        (["who", "when"], {"who": "", "when": ""}),
        ([{"who": "a name"}, {"when": "a day"}], {"who": "a name", "when": "a day"}),
        ([{"name": "who", "means": "a name"}, "when"], {"who": "a name", "when": ""}),
        ({"person": {"name": "as signed", "phone": "null if not given"}, "when": None},
         {"person.name": "as signed", "person.phone": "null if not given", "when": ""}),
        ({"person": [{"name": "of each", "phone": "or null"}]}, {"person.name": "of each", "person.phone": "or null"}),
    ],
)  # fmt: skip
def test_fields_are_a_list_names_with_meanings_or_what_an_object_of_the_examples_holds(
    fields: Any, parts: dict[str, str]
) -> None:
    assert {part.name: part.means for part in stated_in({"fields": fields}, "x", {"person"}).parts} == parts


@table(
    ("of", "change"),
    [
        ({"values": ["a", "b", "c"], "many": True}, {"many": (1, 2)}),
        ({"values": ["a", "b", "c"], "many": [0, 3]}, {"many": (0, 3)}),
        ({"means": "paid", "missing": 0}, {"missing": "0"}),
        ({"means": "paid", "missing": None}, {"missing": ""}),
        ({"means": True, "kind": "number"}, {"means": "true"}),
    ],
)
def test_what_a_field_takes_is_written_as_people_write_yaml(of: Any, change: dict[str, object]) -> None:
    [part] = stated_in({"fields": {"x": of}}, "file").parts
    assert {name: getattr(part, name) for name in change} == change


DISHES: dict[str, Any] = {
    "name": "dishes", "when": "w", "what": "x",
    "examples": [{"prompt": f"a {dish} for {n}", "answer": dish} for n, dish in enumerate(("soup", "pie", "tea"))],
}  # fmt: skip


@table(
    ("changes", "told"),
    [
        ({"fields": {"dish": {"means": "m", "mny": 1}}}, "f: unknown field 'fields.dish.mny'; did you mean 'many'"),
        ({"fields": {"dish": {"kind": "string"}}}, "f: fields.dish.kind is 'string'; it takes label, copied"),
        ({"fields": {"the dish": "what"}}, "f: fields.the dish is 'the dish'; it takes letters, digits and _"),
        ({"fields": [["dish"]]}, r"f: field 1 of fields is \['dish'\]"),
        ({"fields": ["dish", {"dish": "what"}]}, "f: fields has dish twice"),
        ({"labels": [{"soup": "hot"}]}, "f: labels are lists of names"),
        ({"name": "Gerichte"}, "f: name is 'Gerichte'; it takes small letters a-z, digits and dashes"),
        ({"rules": [{"says": "s", "type": "not_contains", "value": "x"}]},
         "f: item 1 of rules: the assertion type 'not_contains' is not supported; did you mean 'not-contains'"),
        ({"answer": {"form": "text", "template": "{dish}", "needs": ["dish"]}}, "names dish, but the attributes"),
    ],
)  # fmt: skip
def test_what_is_no_statement_is_refused_with_its_field_and_what_it_takes(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        words_of({**DISHES, **changes}, "f")


QUERIES = [("every red item", "SELECT * FROM items WHERE colour = 'red';"),
           ("orders in York", "SELECT * FROM orders WHERE city = 'York';"),
           ("items in blue", "SELECT * FROM items WHERE colour = 'blue';")]  # fmt: skip
TASKS = [("Al digs. Bo sings.", "Al: dig\nBo: sing"), ("Cy runs", "Cy: run"), ("Nothing to do.", "-")]


def document(examples: list[tuple[str, str]], **more: Any) -> dict[str, Any]:
    shown = [{"prompt": prompt, "answer": answer} for prompt, answer in examples]
    return {"name": "own", "when": "w", "what": "x", "examples": shown, **more}


@table(
    ("given", "answer"),
    [
        (document(QUERIES, answer={"language": "sql"}, fields={"table": ["items", "orders"], "column": "", "value": ""},
                  template="SELECT * FROM {table} WHERE {column} = '{value}';"), ("text", "sql", "")),
        (document(QUERIES, answer={"language": "sql"}), ("written", "sql", "")),
        (document(TASKS, answer={"form": "lines", "template": "{who}: {job}", "otherwise": "-"},
                  fields={"who": "a name", "job": "what"}), ("lines", "", "-")),
        (document([*TASKS[:2], ("Di cooks", "Di: cook")], fields=["who", "job"],
                  answer={"form": "lines", "template": "{who}: {job}", "otherwise": "none"}), ("lines", "", "none")),
        (document([(f"order {n}", f'{{"number": {n}}}') for n in (11, 12, 13)], answer={"form": "json"}),
         ("json", "", "")),
    ],
)  # fmt: skip
def test_a_form_that_is_said_of_the_answer_is_held_to_the_examples_as_one_beside_the_fields(
    given: dict[str, Any], answer: tuple[str, str, str]
) -> None:
    spec = spec_of(given, "x")
    assert (spec.answer.form, spec.answer.language, spec.answer.otherwise) == answer
    shown = {a.name for a in spec.attributes if a.shown}
    assert bool(shown) == (answer[0] != "written") and is_complete(spec) and spec_of(given, "x") == spec


def test_fields_beside_attributes_are_named_as_not_taken() -> None:
    attributes = [{"name": "dish", "values": {"soup": {}, "pie": {}, "tea": {}}}]
    answer = {"form": "text", "template": "{dish}"}
    words, stated = words_of({**DISHES, "attributes": attributes, "answer": answer, "fields": ["dish"]}, "f")
    made = verified(words, stated)
    assert isinstance(made.spec, Spec) and "say all of it in one of the two ways" in made.left_out[0]
