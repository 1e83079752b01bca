"""A label that the user's words list is drawn and checked, however they list it; what lists nothing is left alone."""

from __future__ import annotations

import pytest

from tunesmith.tools.data.answer_shape import WRITTEN, shape_of
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.propose import completed
from tunesmith.tools.data.spec import Spec

LISTED = [
    ("one word: urgent, normal or spam", {"The server is down!!": "urgent", "Lunch?": "normal", "You won": "spam"},
     "{label}", {"label": ["urgent", "normal", "spam"]}),
    ('answer only with the sentiment, "positive", "negative" or "mixed".',
     {"Loved it": "positive", "Terrible": "negative", "Ok, but rude": "mixed"},
     "{label}", {"label": ["positive", "negative", "mixed"]}),
    ('one line "small", "medium" or "large", then a comma, then "screen" or "no screen". Small is up to 4 people, '
     "medium 5 to 12, large 13 and more. Screen if they mention slides, a video call or a demo; otherwise no screen.",
     {"Six people with slides": "medium, screen", "me and Anna": "small, no screen", "20 please": "large, no screen"},
     "{label}, {label2}", {"label": ["small", "medium", "large"], "label2": ["screen", "no screen"]}),
    ("The team in capitals (SALES, TECH or HR), a slash, and the priority P1, P2 or P3. P1 if something is broken for "
     "everybody, P2 if for one person, P3 for questions.",
     {"Nobody can log in": "TECH/P1", "How many days off?": "HR/P3", "my mouse broke": "TECH/P2"},
     "{team}/{label}", {"team": ["SALES", "TECH", "HR"], "label": ["P1", "P2", "P3"]}),
    ("one emoji: 👍 if the user agrees, 👎 if not, 🤷 if it cannot be told",
     {"sure thing": "👍", "no way": "👎", "let me think": "🤷"}, "{emoji}", {"emoji": ["👍", "👎", "🤷"]}),
    ("yes or no: whether the text mentions a price", {"It costs 5": "yes", "It is blue": "no", "only $3!": "yes"},
     "{label}", {"label": ["yes", "no"]}),
    ("the meal (breakfast, lunch, dinner or snack) and then healthy or unhealthy in brackets",
     {"a donut at four": "snack (unhealthy)", "salad": "lunch (healthy)", "porridge": "breakfast (healthy)"},
     "{meal} ({label})",
     {"meal": ["breakfast", "lunch", "dinner", "snack"], "label": ["healthy", "unhealthy"]}),
    ("Reply with the priority only: 1, 2 or 3. 1 = production down, 2 = a workaround exists, 3 = cosmetic",
     {"all down": "1", "typo in footer": "3", "export fails, csv works": "2"}, "{label}", {"label": ["1", "2", "3"]}),
    ("Antworte mit ja oder nein: ob der Satz eine Frage ist", {"Kommst du?": "ja", "Ich komme.": "nein", "Wo?": "ja"},
     "{label}", {"label": ["ja", "nein"]}),
    ("the department code: FIN for money matters, OPS for deliveries and IT for computers",
     {"invoice wrong": "FIN", "laptop dead": "IT", "truck late": "OPS"}, "{code}", {"code": ["FIN", "OPS", "IT"]}),
    ("Tag it as [bug], [feature] or [question] followed by the component: ui, api or db",
     {"button dead": "[bug] ui", "please add GraphQL": "[feature] api", "how do I index?": "[question] db"},
     "{tag} {component}", {"tag": ["[bug]", "[feature]", "[question]"], "component": ["ui", "api", "db"]}),
    ("a number of stars from 1 to 5 as *, **, ***, **** or *****", {"awful": "*", "great": "*****", "so so": "***"},
     "{label}", {"label": ["*", "**", "***", "****", "*****"]}),
    ("Answer Approve, Reject or Ask for more, with a full stop.",
     {"3 days off": "Approve.", "a year off": "Reject.", "days off": "Ask for more."},
     "{label}.", {"label": ["Approve", "Reject", "Ask for more"]}),
    ('<op kind="read|add|remove" table="users|orders"/> and nothing else',
     {"show all customers": '<op kind="read" table="users"/>', "order 5 is void": '<op kind="remove" table="orders"/>',
      "put in Jane Roe": '<op kind="add" table="users"/>'},
     '<op kind="{kind}" table="{table}"/>', {"kind": ["read", "add", "remove"], "table": ["users", "orders"]}),
    ("SEV<n> <system>: n is 1 when customers cannot pay, 2 when a part is down for many, 3 when it is slow. system is "
     "one of checkout, search, mail.",
     {"nobody can pay": "SEV1 checkout", "results take ages": "SEV3 search", "half of us get no mail": "SEV2 mail"},
     "SEV{n} {system}", {"n": ["1", "2", "3"], "system": ["checkout", "search", "mail"]}),
]  # fmt: skip
UNLISTED = [
    ('Begin with "Got it!" and then say in one sentence what you will do or ask.',
     {"light off": "Got it! I will turn off the light.", "jazz": "Got it! I will play jazz.", "5": "Got it! At five."}),
    ("the name of the language in English, nothing else",
     {"Guten Tag": "German", "Bonjour": "French", "Hola": "Spanish"}),
    ("exactly three bullet points, each one step or hint",
     {"egg?": "- Boil water\n- Add the egg\n- Wait eight minutes", "rice?": "- Rinse the rice\n- Boil it\n- Rest it",
      "toast?": "- Slice bread\n- Toast both sides\n- Butter it"}),
    ('the same in polite words, or "fine" if it is polite already',
     {"send it now": "Could you send it?", "Thanks a lot": "fine", "wtf": "Could you explain that?"}),
    ("a sentence in English or German that praises it", {"tea": "Tea is good.", "Rad": "Ein Rad!", "sea": "Blue sea."}),
]  # fmt: skip


def described(what: str, examples: dict[str, str]) -> Spec:
    pairs = [{"prompt": prompt, "answer": answer} for prompt, answer in examples.items()]
    return completed(Spec(name="own", when="somebody writes", what=what, never="explain", examples=pairs))


@pytest.mark.parametrize(("what", "examples", "template", "labels"), LISTED, ids=[what[:40] for what, *_ in LISTED])
def test_a_listed_label_has_every_value_that_the_words_name_and_the_answer_is_composed(
    what: str, examples: dict[str, str], template: str, labels: dict[str, list[str]]
) -> None:
    spec = described(what, examples)
    assert spec.answer.template == template and not spec.answer.otherwise
    assert {a.name: [*a.values] for a in spec.labels} == labels


@pytest.mark.parametrize(("what", "examples"), UNLISTED, ids=[what[:40] for what, _ in UNLISTED])
def test_words_that_list_no_values_of_the_answers_make_no_label(what: str, examples: dict[str, str]) -> None:
    spec = described(what, examples)
    assert not spec.labels and spec.answer.form == "written"


def test_what_is_said_of_a_value_is_its_meaning() -> None:
    size, screen = described(*LISTED[2][:2]).labels
    assert [value.means for value in size.values.values()] == ["up to 4 people", "5 to 12", "13 and more"]
    assert screen.values["screen"].means == "they mention slides, a video call or a demo"
    assert screen.values["no screen"].means == "none of the others"
    _, priority = described(*LISTED[3][:2]).labels
    assert priority.values["P2"].means == "for one person"
    severity, _ = described(*LISTED[-1][:2]).labels
    assert severity.values["2"].means == "a part is down for many"


def test_one_value_in_every_example_is_no_label_that_could_be_told_apart() -> None:
    assert not described("yes or no", {"Is it?": "yes", "Was it?": "yes", "Will it?": "yes"}).labels


def test_each_slot_has_what_is_told_of_it_and_no_word_of_the_others() -> None:
    spec = described(
        "[URGENCY] TOPIC | UNIT: URGENCY is NOW for water, gas or fire and LATER for everything else, TOPIC at most "
        "four words, UNIT is the flat number or ? when it is not given",
        {"Water through the ceiling in 4B": "[NOW] water through ceiling | 4B", "gas smell!": "[NOW] gas smell | ?",
         "the hallway lamp is broken (12A)": "[LATER] broken hallway lamp | 12A"},
    )  # fmt: skip
    urgency, topic, unit, *_ = spec.attributes
    assert {name: value.means for name, value in urgency.values.items()} == {
        "NOW": "water, gas or fire", "LATER": "everything else",
    }  # fmt: skip
    assert topic.words_max == 4 and (unit.absent_as, unit.means[:8]) == ("?", "UNIT is ")


def test_a_word_that_three_answers_end_with_by_chance_is_no_part_of_the_form() -> None:
    spec = described(
        '"Ja" oder "Nein", dann ein kurzer Grund',
        {"Becher?": "Ja, das ist eine Verpackung.", "Auto?": "Nein, es ist keine Verpackung.",
         "Folie?": "Ja, sie war eine Verpackung."},
    )  # fmt: skip
    assert spec.answer.template == "{part1}, {part2}."


def test_an_answer_that_repeats_its_message_is_held_to_no_length() -> None:
    spec = described(
        "the same text with every name replaced by [NAME]",
        {"Call Maria Lopez before noon": "Call [NAME] before noon", "It is in room 4.": "It is in room 4.",
         "please tell Tom and Ann about it": "please tell [NAME] and [NAME] about it"},
    )  # fmt: skip
    assert not [rule for rule in spec.rules if "words" in rule.says or "line" in rule.says]


@pytest.mark.parametrize(("when", "always"), [
    ("always", True), ("Whatever the user says", True), ("in every answer", True),
    ("every message that is a review", False), ("any question about cooking", False), ("the user sends a note", False),
])  # fmt: skip
def test_a_behaviour_for_every_message_is_told_from_one_of_a_kind(when: str, always: bool) -> None:
    pairs = [{"prompt": f"m{n}", "answer": f"Arr {n}"} for n in range(3)]
    assert Spec(name="own", when=when, what="like a pirate", never="explain", examples=pairs).always is always


def test_examples_of_one_other_language_say_in_which_one_messages_are_written() -> None:
    german = {"Ist die Stelle als Koch noch frei?": "Nein.", "Ich möchte mich als Fahrer bei euch bewerben": "Nein.",
              "Habt ihr noch eine Stelle für mich?": "Ja."}  # fmt: skip
    assert described("ja oder nein", german).language == "German"
    assert described("ja oder nein", {**german, "I would like to apply as a cook": "Nein."}).language == "English"


def test_a_field_whose_name_is_no_word_makes_no_slot_and_no_error() -> None:
    assert shape_of(["a: 1", "b: 2", "c: 3"], "LETTER: NUMBER", ["C++ (a", "b)"]) == WRITTEN


def test_a_file_cannot_say_that_nobody_told_its_behaviour() -> None:
    pairs = [{"prompt": f"m{n}", "answer": f"Arr {n}"} for n in range(3)]
    assert spec_of({"what": "like a pirate", "told": False, "examples": pairs}, "test").told
