"""A turn in which a new behaviour is being described: read, worked into the draft, and its plan proposed at the end."""

from __future__ import annotations

from tunesmith.agent.driver import draft_editing, interview, plan_words
from tunesmith.agent.driver.describing import Interview
from tunesmith.agent.driver.look_ups import said_in, told
from tunesmith.agent.driver.turn_answer import TurnAnswer
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.words.reading import Reading, read_or_not
from tunesmith.memory.errors import BadInput
from tunesmith.tools.data.description import missing


def interviewed(deps: TurnDeps, opened: Interview) -> TurnAnswer:
    """What the user's words come to while a description is open; it also works where no sentence can be read."""
    reading = read_or_not(deps.prompt, said_in(deps))

    def aside() -> str | None:
        answer = told(deps, reading)
        return answer.text if answer else None

    try:
        if _asks_for_an_editor(reading):
            after, words = _edited(deps, opened)
        else:
            after, words = interview.turn(deps.store.home, opened, reading, aside, deps.drafts_before)
    except BadInput as error:
        return TurnAnswer(str(error), tool="describe_behaviour")
    if after is None or missing(after.draft) or words:
        return TurnAnswer(
            words,
            told="(the description goes on)",
            tool="describe_behaviour",
            arguments={"act": "answer" if after else "drop"},
        )
    deps.show(interview.draft_table(after))
    result = plan_words.finish_description(deps, after)
    return TurnAnswer(result, tool="describe_behaviour", arguments={"act": "answer"})


def _asks_for_an_editor(reading: Reading) -> bool:
    bare = reading.slots.said.strip(" .!").lower()
    return bare in ("edit", "editor") or interview.means(reading, "describe.edit")


def _edited(deps: TurnDeps, opened: Interview) -> tuple[Interview | None, str]:
    """The draft after the user's editor, and what is asked next. Raises BadInput."""
    if deps.edit is None:
        raise BadInput(f"there is no terminal to open an editor on. {opened.question}")
    after = draft_editing.taken_from(deps.edit(draft_editing.as_text(opened)), deps.store.home, opened)
    deps.show(interview.draft_table(after))
    return after, after.question if missing(after.draft) else ""
