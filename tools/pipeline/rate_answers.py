"""One sitting in which a person judges two models' answers: messages in, answers asked once, judgements kept.

What is typed is kept at once, an answer as it arrives, a judgement with its second key: after a kill nothing is lost,
and nothing is asked or counted twice. The terminal and the page both work on this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tunesmith.memory import ratings as records
from tunesmith.memory.arms import CHAIN
from tunesmith.memory.errors import BadInput
from tunesmith.memory.ratings import Pair, Rating, Source
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, listed
from tunesmith.tools.data.held_out import account
from tunesmith.tools.evaluation.ask import Answering, answering, chosen_models, newest_tuned, run_to_ask
from tunesmith.tools.evaluation.rated_messages import MOST, Admission
from tunesmith.tools.evaluation.ratings import earlier_messages, numbered, tally
from tunesmith.tools.pipeline.ask_models import Answer, Conversation, ask_each, conversation_tokens
from tunesmith.tools.pipeline.workspace import Approver, Workspace


@dataclass(slots=True)
class Sitting:
    """Two models of a run, and a person who judges what they answer."""

    ws: Workspace
    pair: Pair
    arms: Sequence[str] = ()
    """As they were named; empty: those that are meant."""
    errors: dict[int, str] = field(default_factory=dict)
    """Id of a message → why an arm gave no answer to it when it was asked last."""
    _who: list[Answering] = field(default_factory=list)
    _admission: Admission | None = None

    @classmethod
    def of(cls, ws: Workspace, run: str = "", arms: Sequence[str] = ()) -> Sitting:
        """A sitting on two arms of a run; without any, the base and the tuned model that is meant.

        Raises BadInput where the run has no two models, and NotFound.
        """
        run = run_to_ask(ws.store, run)
        if not arms and newest_tuned(ws.store, run) is None:
            raise BadInput(f"{run} has made no model of its own yet, only its base; `tunesmith train` makes one")
        if arms and len(arms) != 2:
            raise BadInput(f"--arms takes two different arms, such as base,adapter; it was {','.join(arms)!r}")
        (first, one), (last, other) = sorted(
            chosen_models(ws.store, run, arms).items(), key=lambda item: CHAIN.index(item[0])
        )
        adapter = ws.store.ancestor(other, "adapter") or other
        return cls(ws, Pair(run, first, one.id, last, other.id, adapter.id), arms)

    @property
    def store(self) -> Store:
        return self.ws.store

    @property
    def who(self) -> list[Answering]:
        """What answers for both arms. Raises BadInput where one of them cannot, or is another model by now."""
        if not self._who:
            who = answering(self.store, self.pair.run, self.arms, self.ws.vllm)
            ids = {one.artifact.id for one in who}
            if ids != {self.pair.first_artifact, self.pair.last_artifact}:
                raise BadInput(f"{self.pair.run} has made or deployed another model meanwhile; begin `rate` anew")
            self._who = who
        return self._who

    @property
    def admission(self) -> Admission:
        """What says which messages count."""
        self._admission = self._admission or Admission(self.store, self.pair)
        return self._admission

    def now(self) -> dict[int, Rating]:
        """Number → message, as it stands in the store."""
        return numbered(self.store, self.pair)

    # Messages

    def add(self, given: str | bytes, source: Source) -> int:
        """Take a message in; its number. Raises BadInput with why it is none, does not count, or has no place."""
        text = self.admission.text_of(given)
        if source != "generated":
            self.admission.refuse_case(text)
        known = {one.digest: number for number, one in self.now().items()}
        if number := known.get(records.digest_of(text)):
            raise BadInput(f"this is message {number} already; it counts once")
        if self.room() < 1:
            raise BadInput(f"{MOST} messages wait to be judged; judge these first")
        for one in self.who:
            conversation_tokens(self.store, self.pair.run, one, self._conversation(text))
        records.add_messages(self.store, self.pair, [(text, self.admission.source_of(text, source))])
        return next(n for n, one in self.now().items() if one.message == text)

    def add_all(self, texts: Iterable[str], source: Source) -> list[str]:
        """Take messages in as long as there is room; why each of the others was not taken."""
        refused: list[str] = []
        waiting = list(texts)
        while waiting and self.room() > 0:
            try:
                self.add(waiting.pop(0), source)
            except BadInput as error:
                refused.append(str(error))
        if waiting:
            more = count(len(waiting), "message")
            refused.append(f"{more} more than the {MOST} of one sitting; give them again once these are judged")
        return refused

    def add_generated(self, most: int) -> list[str]:
        """Take in messages of rows that were held out, which count apart. Raises BadInput where there are none."""
        known = {one.message for one in self.now().values()}
        texts = [text for text in dict.fromkeys(self.admission.held_out) if text not in known]
        if not texts:
            raise BadInput(f"{self.pair.run} has no held-out row that was not asked yet; write messages of your own")
        return self.add_all(texts[:most], "generated")

    def add_earlier(self) -> list[str]:
        """Take in what was judged of other models of this run. Raises BadInput where there is none."""
        earlier = earlier_messages(self.store, self.pair)
        if not earlier:
            raise BadInput(f"no message was judged with other models of {self.pair.run}; write messages of your own")
        return [line for one in earlier for line in self.add_all([one.message], one.source)]

    def room(self) -> int:
        """Messages that may be added before some are judged."""
        return MOST - sum(not one.rated for one in self.now().values())

    def _conversation(self, text: str) -> Conversation:
        return self.admission.frame.messages(text)

    # Answers

    def ask(self, approver: Approver) -> int:
        """Have every message answered that was not; how many servers were started. Raises as `ask_each` does."""
        self.errors = {}
        waiting = [one for one in self.now().values() if not one.answered]
        if not waiting:
            return 0
        sides = {self.pair.first_arm: "first_answer", self.pair.last_arm: "last_answer"}
        asked = {
            arm: {str(one.id): self._conversation(one.message) for one in waiting if getattr(one, side) is None}
            for arm, side in sides.items()
        }
        who = [one for one in self.who if asked[one.arm]]
        tallies: dict[str, list[int]] = {one.arm: [0, 0] for one in who}

        def take(name: str, answer: Answer) -> None:
            if answer.error:
                self.errors[int(name)] = f"{answer.arm}: {answer.error}"
                return
            records.keep_answer(self.store, int(name), answer.arm, answer.text, answer.cut_at_tokens)
            tallies[answer.arm][0] += 1
            tallies[answer.arm][1] += len(answer.text)

        try:
            return ask_each(self.ws, self.pair.run, who, asked, approver, take)
        finally:
            self._record(sum(len(one.message) for one in waiting), tallies)

    def _record(self, characters: int, tallies: dict[str, list[int]]) -> None:
        artifacts = {self.pair.first_arm: self.pair.first_artifact, self.pair.last_arm: self.pair.last_artifact}
        answers = [
            {"arm": arm, "artifact": artifacts[arm], "answers": n, "characters": length}
            for arm, (n, length) in tallies.items()
        ]
        if any(n for n, _ in tallies.values()):
            self.store.event("asked", run=self.pair.run, characters=characters, answers=answers)

    # Judgements

    def open(self) -> dict[int, Rating]:
        """Number → message that has both answers and waits for a judgement."""
        return {number: one for number, one in self.now().items() if one.answered and not one.rated}

    def rate(self, number: int, verdicts: tuple[bool, bool], by: str, *, on_screen: Rating | None = None) -> None:
        """Keep a judgement of answers 1 and 2. Raises BadInput where it cannot be one, or was made meanwhile."""
        rating = on_screen or self.open().get(number)
        if rating and rating.answers_in_order[0] == rating.answers_in_order[1] and verdicts[0] != verdicts[1]:
            raise BadInput("both answers are the same, letter for letter: both are right, or none is; judge it again")
        if rating is None or not records.rate(self.store, rating, verdicts, by):
            raise BadInput(f"message {number} was judged elsewhere meanwhile; it counts once, as it was judged first")

    def take_back(self, number: int = 0) -> int:
        """Take a judgement back, 0 for the newest; its number. Raises BadInput where there is none."""
        rated = {n: one for n, one in self.now().items() if one.rated}
        number = number or max(rated, key=lambda n: (rated[n].rated_at, n), default=0)
        if number not in rated or not records.take_back(self.store, rated[number]):
            there = f"judged are {listed([*map(str, rated)])}" if rated else "none is judged"
            # Two blanks where no number was given.
            raise BadInput(f"message {number or ''} is not judged; {there}".replace("  ", " "))
        return number

    # What came of it

    def document(self, *, blind: bool = False) -> dict[str, object]:
        """The counts, as `--json` prints them: a person's messages, and those that a model wrote apart.

        `blind`: while any message waits, no count tells one arm from the other.
        """
        arms = self.pair.arms
        own, apart = (tally(self.store, self.pair, generated=generated) for generated in (False, True))
        hidden = blind and bool(own.open or apart.open)
        right, right_apart = (None if hidden else dict(zip(arms, one.right, strict=True)) for one in (own, apart))
        return {
            "run": self.pair.run,
            "arms": list(arms),
            "messages": own.messages,
            "right": right,
            "open": own.open,
            "taken_back": own.taken_back,
            "generated": {"messages": apart.messages, "right": right_apart, "open": apart.open},
        }

    def sentence(self) -> list[str]:
        """The same in lines, for people."""
        arms = self.pair.arms
        lines = []
        for generated in (False, True):
            one = tally(self.store, self.pair, generated=generated)
            if one.messages or not generated:
                right = listed([f"{arm} {n} right" for arm, n in zip(arms, one.right, strict=True)])
                what = "generated message, apart" if generated else "message"
                whats = "generated messages, apart" if generated else "messages"
                waits = f"; {one.open} wait{'s' if one.open == 1 else ''}" if one.open else ""
                lines.append(f"{self.pair.run}: {count(one.rated, what, whats)} judged: {right}{waits}")
        return lines


def who_is_here(where: str) -> str:
    """Who presses the keys: the user of this process, at the terminal or on the page."""
    return f"{account()} {where}"
