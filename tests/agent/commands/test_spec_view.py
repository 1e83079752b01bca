"""The table of a behaviour says who said each part, and what of it no example shows."""

from __future__ import annotations

from pathlib import Path

import yaml
from rich.console import Console

from tunesmith.agent.commands.spec_view import spec_view
from tunesmith.agent.commands.teach import stated_parts
from tunesmith.tools.data.behaviour import words_in
from tunesmith.tools.data.verify import verified

STATED = {
    "name": "desk",
    "what": "x",
    "template": "{team}: {note}",
    "fields": {"team": ["loans", "fees", "rooms"], "note": {"means": "in short", "kind": "text", "words_max": 4}},
    "examples": [
        {
            "messages": [
                {"role": "system", "content": "You sort mail."},
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": answer},
            ]
        }
        for prompt, answer in (("lost it", "fees: a lost book"), ("longer?", "loans: renewal"), ("late", "fees: late"))
    ],
}


def test_the_screen_says_whose_each_part_is_and_which_values_no_example_shows(tmp_path: Path) -> None:
    file = tmp_path / "description.yaml"
    file.write_text(yaml.safe_dump(STATED))
    screen = Console(width=200, record=True)
    screen.print(spec_view(verified(*words_in(file)).spec, stated_parts(file)))
    lines = [" ".join(line.split()) for line in screen.export_text().splitlines()]
    for wanted in (
        "attribute team label; loans, fees, rooms; no example shows rooms said",
        "attribute note text; in short; at most 4 words said",
        "system prompt You sort mail. said",
        "answer composed by code as text: {team}: {note} said",
        "rule the answer has the form '{team}: {note}' proposed",
    ):
        assert wanted in lines, lines


def test_what_makes_messages_differ_is_proposed_by_code_beside_fields_that_were_stated(tmp_path: Path) -> None:
    file = tmp_path / "description.yaml"
    file.write_text(yaml.safe_dump({**STATED, "template": "{team}: {note}", "fields": ["team", "note"]}))
    words, stated = words_in(file)
    sorted_mail = words.model_copy(update={"examples": words.examples[:3]})
    spec = verified(sorted_mail, stated.model_copy(update={"template": "", "parts": (), "form": "written"})).spec
    screen = Console(width=200, record=True)
    screen.print(spec_view(spec, stated_parts(file)))
    [topic] = [line for line in screen.export_text().splitlines() if line.startswith("attribute topic")]
    assert topic.split()[-1] == "proposed"
