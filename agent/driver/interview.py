"""One turn of a description that is being given: what the user types is the answer, unless it plainly is not.

No model reads these words. A side question is answered and the same part stays open; `back`, `what did I say so far?`,
`change the second example`, `when: …` and `drop it` work on the draft.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from rapidfuzz import fuzz
from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.driver import describing
from tunesmith.agent.driver.describing import Interview, echoed
from tunesmith.agent.words.reading import Reading
from tunesmith.memory.errors import BadInput
from tunesmith.tools.data.description import EXAMPLES_MIN, DescriptionDraft, Example, distinct, missing

_AGAIN = re.compile(
    r"^(?:(?:please|can you|could you) )*(?:change|edit|correct|fix|redo|replace|rephrase|rewrite|set|update|"
    r"add)(?: (?:the|"
    r"my|that|part|answer|to|for|about|of))* [\"'“]?(when|what|never|condition|form|rule)\b[\"'”]?(?: part| "
    r"answer)?(?: (?:to|into|as|that|:))?\s*:?\s*(.*)$",
    re.DOTALL | re.IGNORECASE,
)
_ADDS = re.compile(r"(?:also|additionally|include|allow|add|and)\b", re.IGNORECASE)
_EXAMPLE = re.compile(
    r"^(?:please )?(?:no,? )?(change|replace|correct|fix|edit|remove|delete|drop|redo|update|"
    r"set)?\s*(?:the |my )?(?:(first|second|third|fourth|fifth|sixth|last|1st|2nd|3rd|4th|5th|"
    r"\d+)\.? example|example (?:number |no\.? |#)?(\d+|one|two|three|four|five))\s*(?:to|into|"
    r"with|as|is|should be|:|,|-)?\s*:?\s*(.*)$",
    re.IGNORECASE | re.DOTALL,
)
_NUMBERS = {
    "first": 1,
    "1st": 1,
    "one": 1,
    "second": 2,
    "2nd": 2,
    "two": 2,
    "third": 3,
    "3rd": 3,
    "three": 3,
    "fourth": 4,
    "4th": 4,
    "four": 4,
    "fifth": 5,
    "5th": 5,
    "five": 5,
    "sixth": 6,
    "last": -1,
}
_REOPENS = re.compile(
    r"(?:(?:oh|ah|hm+|um+|ok(?:ay)?|well|hey|btw|by the way|ach|also)[,!. ]+)*(?:actually|no,? wait|"
    r"wait,? no|wait|sorry|correction|i meant?|i forgot|one more thing|(?:oh |and )?also|oh,? and|additionally|"
    r"on second thoughts?|scratch that|make that|moment|nein|korrektur|ich meinte?|ach ja|außerdem|übrigens|pardon|"
    r"en fait|perdón|mejor dicho)\b[,:;. ]*",
    re.IGNORECASE,
)
"""How people come back to what they said before."""
_FORBIDS = re.compile(
    r"(?:and |it |the answer |please )*(?:never|nothing|not\b|no (?!wait)\w|don'?t|do not|must not|mustn'?t|should not|"
    r"shouldn'?t|may not|avoid|without|niemals|nie\b|nicht|kein\w*|jamais|nunca)",
    re.IGNORECASE,
)
_ALIKE, _LONG = 65, 30
"""Similarity, of 100, from which words of so many characters say a part anew."""
_FEW_WORDS = 9
_WHY = {
    "when": "I ask when it applies so that everything else stays as it is. One sentence about the kind of "
    "message is enough.",
    "what": "I ask for the form of the answer exactly, since every row and every test is held to it: its "
    "length, its form, what it begins with.",
    "never": "I ask what must never happen, so that it can be tested too. “Nothing” is an answer.",
    "examples": f"Each example is a message and the answer you want, with => between them; {EXAMPLES_MIN} "
    f"different ones are needed.",
}


Aside = Callable[[], str | None]
"""Answers a side question on the screen; what was said, or None where the words ask nothing that it knows."""


def turn(
    home: Path, interview: Interview, reading: Reading, aside: Aside, earlier: list[DescriptionDraft]
) -> tuple[Interview | None, str]:
    """What becomes of the description, and what is said; None: it was dropped. Raises BadInput as `take` does.

    `earlier` are the drafts before each change of this conversation, for `back`; this turn's change is added.
    """
    if means(reading, "describe.back"):
        return _back(home, interview, earlier)
    after, words = _turn(home, interview, reading, aside)
    if after is not None and after.draft != interview.draft:
        earlier.append(interview.draft)
    return after, words


def means(reading: Reading, *labels: str, least: float = 1.0) -> bool:
    """Whether words work on the description rather than belong to it: read with certainty, and few.

    `least`: the probability that is enough where they change nothing.
    """
    return (
        (reading.sure or reading.probability >= least)
        and reading.label in labels
        and len(reading.slots.words) <= _FEW_WORDS
    )


def _turn(home: Path, interview: Interview, reading: Reading, aside: Aside) -> tuple[Interview | None, str]:
    words = reading.slots.said.strip()
    if "\n" not in words and _EXAMPLE.match(words) and (answer := _example(home, interview, words)) is not None:
        return answer
    if describing.names_a_part(words) or "=>" in words or "\n" in words:
        return _taken(home, interview, words)
    if means(reading, "describe.drop", "plan.drop"):
        saved = describing.drop(home)
        return None, f"The new behaviour is dropped and nothing was started; what you said of it is kept in {saved}."
    if means(reading, "describe.so_far", "plan.show"):
        return interview, f"{so_far(interview)}\nOpen now: {short_question(interview)}"
    if (answer := _part_again(home, interview, words)) is not None:
        return answer
    if means(reading, "describe.help", "why", "talk.lost", "yes", "no", "accept"):
        return interview, f"{_WHY[interview.asked]} {short_question(interview)}"
    if reading.sure and reading.slots.asks | (len(reading.slots.words) <= _FEW_WORDS) and (answered := aside()):
        return interview, f"{answered}\nBack to the new behaviour: {short_question(interview)}"
    if means(reading, "go_on", "plan.wait", "plan.start", "talk.thanks", "talk.hello", "remark", least=0.7):
        return interview, f"Take your time. {short_question(interview)}"
    if means(reading, "describe.done") and interview.asked == "examples":
        left = EXAMPLES_MIN - len(distinct(interview.draft.examples))
        return (
            interview,
            f"{left} more example{'s' if left > 1 else ''} needed before it can be tested: MESSAGE => ANSWER.",
        )
    return _corrected(home, interview, words) or _taken(home, interview, words)


def _corrected(home: Path, interview: Interview, words: str) -> _Found:
    """Words that come back to a part that was said already, added below it or in its place; None for other words.

    An example has an arrow: what has none while one is asked for is about another part, where it says which.
    """
    draft, opened = interview.draft, _REOPENS.match(words)
    said = [part for part in ("when", "what", "never") if getattr(draft, part)]
    asks_example = interview.asked == "examples"
    forbids = _FORBIDS.match(words[opened.end() :] if opened else words) is not None
    if len(words) >= _LONG and (again := [part for part in said if _alike(words, getattr(draft, part))]):
        after = describing.take(home, interview, f"{again[0]}: {words}")
        return after, f"{again[0]} is now: “{words}”. {short_question(after)}"
    if not said or not (opened or asks_example) or (opened and forbids and interview.asked == "never"):
        return None
    part = "never" if forbids else "what" if opened and "what" in said else said[-1] if opened else ""
    if not part:
        return None
    after = describing.add(home, interview, part, words)
    return after, f"Added to {part}: “{words}”; “{part}: …” says it anew, “back” takes it out. {short_question(after)}"


def _alike(words: str, said: str) -> bool:
    """Whether words say anew what was said."""
    return max(fuzz.ratio(words, said), fuzz.ratio(words, said.split("\n")[0])) >= _ALIKE


def _taken(home: Path, interview: Interview, words: str) -> tuple[Interview, str]:
    after = describing.take(home, interview, words)
    if not missing(after.draft):
        return after, ""
    if after == interview:
        return after, short_question(after)
    return after, f"{_kept(interview.draft, after.draft)}{after.question}"


def _kept(before: DescriptionDraft, after: DescriptionDraft) -> str:
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


_Found = tuple[Interview | None, str] | None


def _back(home: Path, interview: Interview, earlier: list[DescriptionDraft]) -> tuple[Interview, str]:
    """Take the newest change back; what it had changed is asked for again."""
    before = earlier.pop() if earlier else _without_newest(interview.draft)
    if before == interview.draft:
        return interview, f"There is nothing to take back yet: {short_question(interview)}"
    after = describing.keep(home, interview, before)
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
            return f", {part}: “{now.removeprefix(was).strip()[:100]}”"
    return ""


def so_far(interview: Interview) -> str:
    """The draft in lines: every part as it was said."""
    draft = interview.draft
    lines = [f"goal: {interview.goal}"]
    lines += [f"{part}: {getattr(draft, part) or '(not said yet)'}" for part in ("when", "what", "never")]
    lines += [f"example {n}: {echoed(example)}" for n, example in enumerate(draft.examples, 1)] or [
        "examples: (none yet)"
    ]
    return "\n".join(lines)


def draft_table(interview: Interview) -> RenderableType:
    """The whole draft for the screen."""
    draft = interview.draft
    rows = [["goal", interview.goal], *([part, getattr(draft, part)] for part in ("when", "what", "never"))]
    rows += [[f"example {n}", echoed(example)] for n, example in enumerate(draft.examples, 1)]
    return render.rows_table(["part", "as you said it"], rows, exact=True)


def _example(home: Path, interview: Interview, words: str) -> _Found:
    """Change, replace or remove an example by its number."""
    match = _EXAMPLE.match(words)
    if match is None or not (match[1] or match[4]):
        return None
    examples = list(interview.draft.examples)
    word = (match[2] or match[3]).lower()
    number = _NUMBERS.get(word) or int(word) if word in _NUMBERS or word.isdigit() else 0
    number = len(examples) if number == -1 else number
    if not 1 <= number <= len(examples):
        return (
            interview,
            f"There are {len(examples)} examples so far, so none has the number {number}. {short_question(interview)}",
        )
    if (match[1] or "").lower() in ("remove", "delete", "drop"):
        gone = examples.pop(number - 1)
        line = f"Example {number} is removed: {echoed(gone)}."
    elif not match[4]:
        return interview, (
            f"Example {number} is {echoed(examples[number - 1])}. Say it anew as: example {number}: MESSAGE => ANSWER"
        )
    else:
        examples[number - 1] = _rewritten(match[4], examples[number - 1])
        line = f"Example {number} is now {echoed(examples[number - 1])}."
    after = describing.keep(home, interview, _with(interview.draft, tuple(examples)))
    return after, f"{line} {after.question if missing(after.draft) else ''}".strip()


def _rewritten(text: str, before: Example) -> Example:
    """A whole example, or only its answer."""
    try:
        return describing.examples_of(text)[0]
    except BadInput:
        answer = re.sub(r"^(?:the )?answer(?: should be| is|:)?\s*:?\s*", "", text, flags=re.IGNORECASE)
        return Example(prompt=before.prompt, answer=answer.replace("\\n", "\n"))


def _with(draft: DescriptionDraft, examples: tuple[Example, ...]) -> DescriptionDraft:
    return draft.model_copy(update={"examples": examples})


def _part_again(home: Path, interview: Interview, words: str) -> _Found:
    """`change the never part to …`, or ask for it anew."""
    match = _AGAIN.match(words)
    if match is None:
        return None
    part = {"condition": "when", "form": "what", "rule": "what"}.get(match[1].lower(), match[1].lower())
    if (text := match[2].strip()) and _ADDS.match(text):
        after = describing.add(home, interview, part, text)
        return after, f"Added to {part}: “{text}”. {short_question(after)}"
    if text:
        after = describing.take(home, interview, f"{part}: {text}")
        return (
            after,
            f"{part} is now: “{getattr(after.draft, part)}”. {after.question if missing(after.draft) else ''}".strip(),
        )
    after = describing.keep(home, interview, interview.draft.model_copy(update={part: ""}))
    return after, after.question
