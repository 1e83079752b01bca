"""Templates that are filled in without Jinja are filled in as Jinja would."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.tools.suites import template

PIECES = (
    *("{{a}}", "{{ b }}", "{{none}}", "{{ missing }}", "{{a.b}}", "{{1}}", "{% if a %}", "{#", "#}"),
    *("{", "}", "x\n", "\r\n", "é", " "),
)


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_what_is_filled_in_without_jinja_is_what_jinja_makes(text: str) -> None:
    values = {"a": "A {{b}}", "b": "B\n", "none": "n"}
    plain = template._filled_plainly(text, values)
    if plain is not None:
        assert plain == "".join(template._template(text).generate(values))


def test_the_usual_prompt_takes_that_way() -> None:
    assert (
        template._filled_plainly("Triage this:\n\n{{ticket}}\n", {"ticket": "a {{b}}"}) == "Triage this:\n\na {{b}}\n"
    )
