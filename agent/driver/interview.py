"""One turn of a description that is being given: what the user types is the answer, unless it plainly is not.

A side question is answered and the same part stays open; `back`, `what did I say so far?`, `change the second example`,
`when: …` and `drop it` work on the draft. The reader says which of these words are; what is kept is letter for letter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rapidfuzz import fuzz
from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.driver import describing, opening, ordering
from tunesmith.agent.driver.describing import Interview, echoed
from tunesmith.agent.driver.look_ups import answer_to, turn_context
from tunesmith.agent.driver.turn_deps import TurnAnswer, TurnDeps
from tunesmith.agent.words.lexicon import lexicon, words_of
from tunesmith.agent.words.reading import Reading, read_or_not
from tunesmith.agent.words.slots import empty_words, slots_of
from tunesmith.memory.errors import BadInput
from tunesmith.tools.data.description import EXAMPLES_MIN, DescriptionDraft, Example, distinct, missing

_ALIKE, _LONG = 65, 30
"""Similarity, of 100, from which words of so many characters say a part anew; shorter ones are alike by chance."""
_FEW_WORDS = 9
"""Longer words without a question mark are what was asked for, and no question of their own."""
_POINTING_WORDS, _POINTING_CHARACTERS = 7, 300
"""Among so many first words of a sentence stands what it points at, such as `the second example`."""
_LIST = re.compile(r"\w+(?:, *\w+)+(?:,? +\w+ +\w+)?(?=[.;:\n])")
_ADDS = 0.6
"""From which probability words are added to what was said; it is told, and `back` takes it out."""
ASIDE = 0.8
"""From which probability a question is answered beside the description; below it, it may be what a message says."""
_OUTSIDE = ("out_of_scope", "talk.weather", "talk.clock", "talk.calculator", "talk.joke")
"""What asks for nothing of this program: while a behaviour is described, that is what a message says."""
_ADDED_TO = {"describe.more": "what", "describe.forbid": "never"}
_WHY = {
    "when": "I ask when it applies so that everything else stays as it is. One sentence about the kind of "
    "message is enough.",
    "what": "I ask for the form of the answer exactly, since every row and every test is held to it: its "
    "length, its form, what it begins with.",
    "never": "I ask what must never happen, so that it can be tested too. “Nothing” is an answer.",
    "examples": f"Each example is a message and the answer you want, with => between them; {EXAMPLES_MIN} "
    f"different ones are needed.",
}


@dataclass(frozen=True, slots=True)
class _Pointing:
    """Words that begin by pointing at a part of the draft, and what they say of it, letter for letter."""

    part: str
    """when, what, never or example."""
    number: int
    """Of the example; -1 is the last one, 0 none."""
    head: str
    """The words up to what they say."""
    text: str


def _pointing(sentence: str) -> _Pointing | None:
    """What a sentence points at in its first words; None where it names no part, or begins with one."""
    words = words_of(sentence[:_POINTING_CHARACTERS])
    numbers = {
        match.first: int(match.name) for name in ("numbers", "ordinals") for match in lexicon()[name].find(words)
    }
    numbers |= {at: int(word.text) for at, word in enumerate(words) if word.text.isdecimal()}
    for match in lexicon()["draft_parts"].find(words[:_POINTING_WORDS]):
        place = next((at for at in (match.first - 1, match.after) if at in numbers), None)
        if (place is None) if match.name == "example" else match.first == 0:
            continue
        after = max(match.after, (place or 0) + 1) if match.name == "example" else match.after
        end, behind = words[after - 1].end, words[after:]
        joint = next((one for one in lexicon()["draft_joins"].find(behind[:2]) if one.first == 0), None)
        if joint and ":" not in sentence[end : behind[0].start]:
            end = behind[joint.after - 1].end
        text = sentence[end:].lstrip(" :\"'“,.").rstrip() if sentence[end:].strip(" :\"'“,.?!") else ""
        return _Pointing(
            match.name, numbers[place] if place is not None else 0, sentence[: len(sentence) - len(text)], text
        )
    return None


def _turn(deps: TurnDeps, interview: Interview, reading: Reading) -> tuple[Interview | None, str]:
    """What becomes of the description, and what is said; None: it was dropped. Raises BadInput as `take` does.

    The draft before a change is kept for `back`.
    """
    if means(reading, "describe.back"):
        return _back(deps, interview)
    after, words = _outcome_of(deps, interview, reading)
    if after is not None and after.draft != interview.draft:
        deps.drafts_before.append(interview.draft)
    return after, words


def means(reading: Reading, *labels: str, least: float = 1.0) -> bool:
    """Whether words work on the description rather than belong to it: read with certainty, and few.

    `least`: the probability that is enough where they change nothing.
    """
    few = len(reading.slots.words) <= _FEW_WORDS
    return few and reading.label in labels and (reading.sure or reading.probability >= least)


def _outcome_of(deps: TurnDeps, interview: Interview, reading: Reading) -> tuple[Interview | None, str]:
    home, words = deps.store.home, reading.slots.sentence.strip()
    if (answer := _pointed(deps, interview, reading)) is not None:
        return answer
    if describing.names_a_part(words) or "=>" in words or "\n" in words:
        return _answer_recorded(home, interview, words)
    if means(reading, "describe.drop", "plan.drop"):
        saved = describing.drop(home)
        return None, f"The new behaviour is dropped and nothing was started; what you said of it is kept in {saved}."
    if means(reading, "describe.so_far", "plan.show"):
        return interview, f"{so_far(interview)}\nOpen now: {short_question(interview)}"
    if means(reading, "describe.help", "why", "talk.lost", "yes", "no", "accept"):
        return interview, f"{_WHY[interview.asked]} {short_question(interview)}"
    may_ask = (reading.slots.asks or len(reading.slots.words) <= _FEW_WORDS) and reading.label not in _OUTSIDE
    if reading.probability >= ASIDE and may_ask and (aside := answer_to(deps, reading)):
        return interview, f"{aside.text}\nBack to the new behaviour: {short_question(interview)}"
    # below an answer's own threshold: nothing is done, and the question stands
    if means(reading, "go_on", "plan.wait", "plan.start", "talk.thanks", "talk.hello", "remark", least=0.55):
        return interview, f"Take your time. {short_question(interview)}"
    if means(reading, "describe.done") and interview.asked == "examples":
        left = EXAMPLES_MIN - len(distinct(interview.draft.examples))
        more = f"{left} more example{'s' if left > 1 else ''} needed"
        return interview, f"{more} before it can be tested: MESSAGE => ANSWER."
    return _corrected(home, interview, reading, words) or _answer_recorded(home, interview, words)


def _corrected(home: Path, interview: Interview, reading: Reading, words: str) -> _Outcome:
    """Words that come back to a part that was said already, added below it or in its place; None for other words.

    What must not be is no correction where a rule of another part is asked for: there it is the answer.
    """
    draft = interview.draft
    filled = [part for part in ("when", "what", "never") if getattr(draft, part)]
    if len(words) >= _LONG and (again := [part for part in filled if _alike(words, getattr(draft, part))]):
        after = describing.take(home, interview, f"{again[0]}: {words}")
        return after, f"{again[0]} is now: “{words}”. {short_question(after)}"
    if not filled or reading.probability < _ADDS or reading.label not in _ADDED_TO:
        return None
    if reading.label == "describe.forbid" and interview.asked != "examples":
        return None
    part = _ADDED_TO[reading.label] if _ADDED_TO[reading.label] in (*filled, "never") else filled[-1]
    after = describing.add(home, interview, part, words)
    return after, f"Added to {part}: “{words}”; “{part}: …” says it anew, “back” takes it out. {short_question(after)}"


def _alike(words: str, earlier: str) -> bool:
    """Whether words say anew what was said."""
    return max(fuzz.ratio(words, earlier), fuzz.ratio(words, earlier.split("\n")[0])) >= _ALIKE


def _answer_recorded(home: Path, interview: Interview, words: str) -> tuple[Interview, str]:
    if interview.draft == DescriptionDraft() and opening.tells_several_parts(words):
        after, took = opening.filled_in(home, interview, words)
        return after, f"{took}{after.question}"
    labels = _labels(words)
    # what each label stands for says the answer, and not when one is wanted
    after = describing.take(home, interview, f"what: {words}" if labels and interview.asked == "when" else words)
    if not missing(after.draft):
        return after, ""
    if after == interview:
        return after, short_question(after)
    bare = ", ".join(f"“{one}”" for one, times in labels.items() if times == 1)
    told = f"(What {bare} stands for was not said: “what: …” says it all anew.)\n" if bare else ""
    return after, f"{_written_down(interview.draft, after.draft)}{told}{after.question}"


def _labels(words: str) -> dict[str, int]:
    """The labels that words list, and how often each stands in them: what one stands for is said where it stands again.
    Empty: no list, or of none that was said."""
    listed = _LIST.search(words) if slots_of(words).values("figure") == ["balance"] or "=" in words else None
    said = [word.written for word in words_of(words)]
    labels = {word.written: said.count(word.written) for word in words_of(listed[0])} if listed else {}
    labels = {one: times for one, times in labels.items() if one not in empty_words()}
    return labels if max(labels.values(), default=0) > 1 else {}


def _written_down(before: DescriptionDraft, after: DescriptionDraft) -> str:
    """What was written down just now, a line each; an example is read back with the next question."""
    changed = [part for part in ("when", "what", "never") if getattr(before, part) != getattr(after, part)]
    return "".join(f"{part}: {' '.join(getattr(after, part).split())} ✓\n" for part in changed)


def short_question(interview: Interview) -> str:
    """The open question in a few words."""
    return {
        "when": "when shall it apply?",
        "what": "what exactly shall the answer be?",
        "never": "what must the answer never do?",
        "examples": f"the next example, as MESSAGE => ANSWER ({len(distinct(interview.draft.examples))} of "
        f"{EXAMPLES_MIN} are here)?",
    }[interview.asked]


_Outcome = tuple[Interview | None, str] | None


def _back(deps: TurnDeps, interview: Interview) -> tuple[Interview, str]:
    """Take the newest change back; what it had changed is asked for again."""
    before = deps.drafts_before.pop() if deps.drafts_before else _without_newest(interview.draft)
    if before == interview.draft:
        return interview, f"There is nothing to take back yet: {short_question(interview)}"
    after = describing.keep(deps.store.home, interview, before)
    return after, f"Taken back{_difference(before, interview.draft)}. {after.question}"


def _without_newest(draft: DescriptionDraft) -> DescriptionDraft:
    """A draft without its newest part, where no earlier one is remembered."""
    if draft.examples:
        return draft.model_copy(update={"examples": draft.examples[:-1]})
    newest = next((part for part in ("never", "what", "when") if getattr(draft, part)), "")
    return draft.model_copy(update={newest: ""}) if newest else draft


def _difference(before: DescriptionDraft, after: DescriptionDraft) -> str:
    """What the newest change had said."""
    if new := [one for one in after.examples if one not in before.examples]:
        return f": {echoed(new[-1])}"
    for part in ("never", "what", "when"):
        if (was := getattr(before, part)) != (now := getattr(after, part)):
            return f", {part}: “{now.removeprefix(was).strip()[:100]}”"  # to see that it was taken
    return ""


def _draft_rows(interview: Interview) -> list[list[str]]:
    """Every part as it was said, behind its name."""
    draft = interview.draft
    rows = [["goal", interview.goal], *([part, getattr(draft, part)] for part in ("when", "what", "never"))]
    return [*rows, *([f"example {n}", echoed(example)] for n, example in enumerate(draft.examples, 1))]


def so_far(interview: Interview) -> str:
    """The draft in lines."""
    none_yet = [] if interview.draft.examples else ["examples: (none yet)"]
    return "\n".join([*(f"{name}: {text or '(not said yet)'}" for name, text in _draft_rows(interview)), *none_yet])


def draft_table(interview: Interview) -> RenderableType:
    """The whole draft for the screen."""
    return render.rows_table(["part", "as you said it"], _draft_rows(interview), exact=True)


def _pointed(deps: TurnDeps, interview: Interview, reading: Reading) -> _Outcome:
    """`change the second example to …`, `remove the last example`, `replace the never with …`; None for other words."""
    home, words = deps.store.home, reading.slots.sentence.strip()
    pointing = _pointing(words) if "\n" not in words and not describing.names_a_part(words) else None
    if pointing is None or "=>" in pointing.head:
        return None
    act = reading if means(reading, "describe.remove") else read_or_not(pointing.head, turn_context(deps))
    if not act.sure:
        return None
    if pointing.part == "example" and act.label in ("describe.change", "describe.remove"):
        return _example(home, interview, pointing, removes=act.label == "describe.remove")
    if act.label not in ("describe.change", "describe.more") or pointing.part == "example":
        return None
    if pointing.text and act.label == "describe.more":
        after = describing.add(home, interview, pointing.part, pointing.text)
        return after, f"Added to {pointing.part}: “{pointing.text}”. {short_question(after)}"
    if not pointing.text:
        after = describing.keep(home, interview, interview.draft.model_copy(update={pointing.part: ""}))
        return after, after.question
    after = describing.take(home, interview, f"{pointing.part}: {pointing.text}")
    asked = after.question if missing(after.draft) else ""
    return after, f"{pointing.part} is now: “{getattr(after.draft, pointing.part)}”. {asked}".strip()


def _example(home: Path, interview: Interview, pointing: _Pointing, *, removes: bool) -> _Outcome:
    """Change, replace or remove an example by its number."""
    examples = list(interview.draft.examples)
    number = len(examples) if pointing.number == -1 else pointing.number
    if not 1 <= number <= len(examples):
        none = f"There are {len(examples)} examples so far, so none has the number {number}."
        return interview, f"{none} {short_question(interview)}"
    if removes:
        line = f"Example {number} is removed: {echoed(examples.pop(number - 1))}."
    elif not pointing.text:
        stands = f"Example {number} is {echoed(examples[number - 1])}."
        return interview, f"{stands} Say it anew as: example {number}: MESSAGE => ANSWER"
    else:
        examples[number - 1] = _rewritten(pointing.text, examples[number - 1])
        line = f"Example {number} is now {echoed(examples[number - 1])}."
    after = describing.keep(home, interview, interview.draft.model_copy(update={"examples": tuple(examples)}))
    return after, f"{line} {after.question if missing(after.draft) else ''}".strip()


def _rewritten(text: str, before: Example) -> Example:
    """A whole example, or only its answer."""
    try:
        return describing.examples_of(text)[0]
    except BadInput:
        return Example(prompt=before.prompt, answer=text.replace("\\n", "\n"))


def interviewed(deps: TurnDeps, opened: Interview) -> TurnAnswer:
    """What the user's words come to while a description is open; it also works where no sentence can be read."""
    reading = read_or_not(deps.prompt, turn_context(deps))
    asks_for_an_editor = deps.prompt.strip(" .!").lower() in ("edit", "editor") or means(reading, "describe.edit")
    try:
        after, words = _edited(deps, opened) if asks_for_an_editor else _turn(deps, opened, reading)
    except BadInput as error:
        return TurnAnswer(str(error), tool="describe_behaviour")
    if after is None or missing(after.draft) or words:
        act = {"act": "answer" if after else "drop"}
        return TurnAnswer(words, "(the description goes on)", "describe_behaviour", act)
    deps.show(draft_table(after))
    result = ordering.finish_description(deps, after)
    return TurnAnswer(result, tool="describe_behaviour", arguments={"act": "answer"})


def _edited(deps: TurnDeps, opened: Interview) -> tuple[Interview | None, str]:
    """The draft after the user's editor, and what is asked next. Raises BadInput."""
    if deps.edit is None:
        raise BadInput(f"there is no terminal to open an editor on. {opened.question}")
    after = describing.edited_draft(deps.edit(describing.as_text(opened)), deps.store.home, opened)
    deps.show(draft_table(after))
    return after, after.question if missing(after.draft) else ""
