"""One turn of a description that is being given: what the user types is the answer, unless it plainly is not.

A question beside it is answered and not stored. `back`, `edit`, `when: …` and `drop it` work on the draft. What is kept
is letter for letter.
"""

from __future__ import annotations

import re

from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.driver import describing, drafts, fallback, plan
from tunesmith.agent.driver.drafts import Interview, keep
from tunesmith.agent.driver.fallback import Spoken
from tunesmith.agent.driver.turn_deps import TurnAnswer, TurnDeps
from tunesmith.agent.words.lexicon import as_written, words_of
from tunesmith.agent.words.reading import Reading, read_or_not
from tunesmith.memory.errors import BadInput
from tunesmith.tools.data.description import EXAMPLES_MIN, DescriptionDraft, distinct, missing

_FEW_WORDS = 9
"""Longer words without a question mark are what was asked for, and no question of their own."""
_ASIDE, _QUESTION = 0.8, 0.7
"""From which probability a question is answered beside the description, and one that ends as a question does; below it,
it may be what a message says."""
_CORRECTS, _CORRECTION = ("describe.change", "describe.remove"), 0.4
"""What is said of a part that is there; from which probability, where such a part is named, it is no part itself."""
_HELP = ("describe.help", "why", "talk.lost", "yes", "no", "accept", "go_on", "remark", "talk.thanks", "talk.hello")
_OUTSIDE = ("out_of_scope", "talk.weather", "talk.clock", "talk.calculator", "talk.joke")
"""What asks for nothing of this program: while a behaviour is described, that is what a message says."""


def turn(deps: TurnDeps, spoken: Spoken, opened: Interview) -> TurnAnswer:
    """What the words come to while a description is open; it also works where no sentence can be read."""
    reading = read_or_not(deps.prompt, fallback.context_of(deps, spoken))
    try:
        after, text = _outcome(deps, spoken, opened, reading)
        if after is None or missing(after.draft) or text:
            act = {"act": "answer" if after else "drop"}
            return TurnAnswer(text, "(the description goes on)", "describe_behaviour", act)
        deps.draft, text = describing.plan_of(deps, after)
    except BadInput as error:
        return TurnAnswer(str(error), tool="describe_behaviour")
    deps.draft_before = None
    text = f"{text} It takes about {plan.show_draft(deps)['estimated_in_all']} in all."
    return TurnAnswer(text, tool="describe_behaviour", arguments={"act": "answer"})


def _outcome(
    deps: TurnDeps, spoken: Spoken, opened: Interview, reading: Reading
) -> tuple[Interview | None, str]:  # fmt: skip
    """What becomes of the description, and what is said; None: it was dropped. Raises BadInput."""
    home, words = deps.store.home, deps.prompt.strip()
    few = len(reading.slots.words) <= _FEW_WORDS
    passing = reading.label == "remark" and reading.probability >= _ASIDE  # `hmm wait`
    label = reading.label if few and (reading.sure or passing) else ""
    given = describing.names_a_part(words) or "=>" in words or "\n" in words
    if not given and (words.lower() in ("edit", "editor") or label == "describe.edit"):
        return _edited(deps, opened)
    if not given and (words.lower() == "back" or label == "describe.back"):
        before = spoken.drafts.pop() if spoken.drafts else DescriptionDraft()
        return (after := keep(home, opened, before)), f"Taken back. {after.question}"
    if not given and label in ("describe.drop", "plan.drop"):
        saved = drafts.drop(home)
        return None, f"The new behaviour is dropped and nothing was started; what you said of it is kept in {saved}."
    of_this = label == "run.overview" and not reading.slots.all("run")  # `where were we?`
    if not given and (of_this or _asks_of_it(opened, words) or label in ("describe.so_far", "plan.show", *_HELP)):
        deps.show(_table(opened))
        return opened, opened.question
    least = _QUESTION if words.endswith("?") else _ASIDE
    asks = reading.probability >= least and (few or reading.slots.asks) and reading.label not in _OUTSIDE
    if not given and asks and reading.asks and (aside := fallback.told(deps, spoken, reading)):
        return opened, f"{aside.text}\nBack to the new behaviour: {opened.question}"
    if not given and label == "describe.done" and opened.asked == "examples":
        left = EXAMPLES_MIN - len(distinct(opened.draft.examples))
        return opened, f"{left} more are needed before it can be tested: MESSAGE => ANSWER."
    if not describing.names_a_part(words) and (_corrects(reading) or _takes_back(opened, words)):
        how = "a part is said anew as “what: …”, an example by its message; “edit” opens them all"
        return opened, f"Nothing was changed: {how}. {opened.question}"
    after = describing.take(home, opened, words)
    spoken.drafts.append(opened.draft)
    changed = [part for part in ("when", "what", "never") if getattr(opened.draft, part) != getattr(after.draft, part)]
    lines = [f"{part}: {' '.join(getattr(after.draft, part).split())} ✓" for part in changed]
    return after, "\n".join((*lines, after.question)) if missing(after.draft) else ""


def _asks_of_it(opened: Interview, said: str) -> bool:
    """Whether a question ends in the name of the part that is asked for: `what would you recommend for 'never'?`"""
    words = words_of(said)
    ends = (one.name for one in as_written("draft_parts", words) if one.after == len(words))
    return said.endswith("?") and any(map(opened.asked.startswith, ends))


def _corrects(reading: Reading) -> bool:
    """Whether words are about a part or an example that is there: `change the second example to …`."""
    likely = reading.label in _CORRECTS and reading.probability >= _CORRECTION
    return likely and bool(as_written("draft_parts", reading.slots.words))


def _takes_back(opened: Interview, said: str) -> bool:
    """Whether an answer begins as a correction of what was said before: `actually no: …`, `oops, …`."""
    sayings = as_written("corrects", words := words_of(said))
    ends = [words[one.after - 1].end for one in sayings if one.first == 0 and opened.asked != "examples"]
    return any(re.match(r"\s*(?:\w+\s*)?[,:;–—]", said[end:]) for end in ends)


def _edited(deps: TurnDeps, opened: Interview) -> tuple[Interview, str]:
    """The draft after the user's editor, and what is asked next. Raises BadInput."""
    if deps.edit is None:
        raise BadInput(f"there is no terminal to open an editor on. {opened.question}")
    after = describing.edited_draft(deps.edit(describing.as_text(opened)), deps.store.home, opened)
    deps.show(_table(after))
    return after, after.question if missing(after.draft) else ""


def _table(interview: Interview) -> RenderableType:
    """Every part as it was said, behind its name."""
    draft = interview.draft
    rows = [["goal", interview.goal], *([part, getattr(draft, part)] for part in ("when", "what", "never"))]
    rows += [[f"example {n}", drafts.echoed(example)] for n, example in enumerate(draft.examples, 1)]
    return render.rows_table(["part", "as you said it"], rows, exact=True)
