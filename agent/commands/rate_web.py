"""A sitting as a small page of this machine: messages in a box, two answers, two keys.

The page never says which arm gave which answer. What has to be started is priced and agreed to in the terminal, which
waits there while the page is open.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from tunesmith.agent.commands.local_page import PageServer
from tunesmith.agent.commands.output import Output
from tunesmith.memory.errors import ApprovalPending, BadInput, TunesmithError
from tunesmith.memory.ratings import Rating
from tunesmith.tools.core.format import visible
from tunesmith.tools.pipeline.rate_answers import Sitting, who_is_here
from tunesmith.tools.pipeline.workspace import Approver

_LOOK_S = 0.2
"""How often the terminal looks whether the page wants something asked: a person waits for it."""


class RateServer(PageServer):
    """Serves one sitting."""

    def __init__(self, sitting: Sitting, port: int = 0, say: Callable[[str], None] = lambda line: None) -> None:
        acts = {"messages": self.messages, "judge": self.judge, "back": self.back, "ask": self.ask}
        super().__init__("rate.html", port, say, reads={"state": self.state}, acts=acts)
        self.sitting = sitting
        self.wanted = threading.Event()
        """Messages wait for their answers."""
        self.note = ""
        """What the page says of the answers that are awaited."""
        if any(not one.answered for one in sitting.now().values()):
            self.wanted.set()

    def state(self) -> dict[str, object]:
        """The messages with their answers in the order in which they are shown, and the counts."""
        entries = [_entry(number, one) for number, one in self.sitting.now().items()]
        return {
            **self.sitting.document(blind=True),
            "shown": entries,
            "room": self.sitting.room(),
            "note": visible(self.note),
        }

    def messages(self, request: dict[str, object]) -> dict[str, object]:
        """Take messages in, one a line or the whole as one. Raises BadInput for what is no text."""
        text = request.get("text")
        if not isinstance(text, str):
            raise BadInput("messages are a text")
        texts = [text] if request.get("one") is True else [line for line in text.splitlines() if line.strip()]
        before = self.sitting.room()
        refused = self.sitting.add_all(texts or [""], "pasted" if request.get("pasted") is True else "typed")
        if self.sitting.room() < before:
            self.wanted.set()
        return {"refused": [visible(line) for line in refused], **self.state()}

    def judge(self, request: dict[str, object]) -> dict[str, object]:
        """Keep a judgement of answers 1 and 2 as they were shown. Raises BadInput."""
        number, right = request.get("number"), request.get("right")
        if type(number) is not int or not isinstance(right, list) or [type(one) for one in right] != [bool, bool]:
            raise BadInput("a judgement is a number of a message and two answers, right or not")
        self.sitting.rate(number, (right[0], right[1]), who_is_here("on the page"))
        return self.state()

    def back(self, request: dict[str, object]) -> dict[str, object]:
        """Take a judgement back, the newest where none is named. Raises BadInput."""
        number = request.get("number", 0)
        if type(number) is not int:
            raise BadInput("a judgement is named by its number")
        return {"taken_back": self.sitting.take_back(number), **self.state()}

    def ask(self, request: dict[str, object]) -> dict[str, object]:
        """Have what was not answered asked again."""
        self.wanted.set()
        return self.state()


def _entry(number: int, one: Rating) -> dict[str, object]:
    answers = [{"text": visible(text), "cut": cut} for text, cut in one.answers_in_order] if one.answered else None
    return {"number": number, "message": visible(one.message), "generated": one.source == "generated",
            "answers": answers, "judged": one.rated}  # fmt: skip


def serve(sitting: Sitting, out: Output, approver: Approver, *, port: int = 0) -> None:
    """Serve the page until Ctrl-C; what it wants asked is asked, and agreed to, in this thread."""
    with RateServer(sitting, port, out.say) as server:
        out.say(f"judge answers in a browser of this machine: {server.url} (Ctrl-C ends it)")
        threading.Thread(target=lambda: server.serve_forever(poll_interval=_LOOK_S), daemon=True).start()
        try:
            while True:
                if server.wanted.wait(_LOOK_S):
                    server.wanted.clear()
                    _ask(server, out, approver)
        except KeyboardInterrupt:  # the way to end it, as it says
            pass
        finally:
            server.shutdown()


def _ask(server: RateServer, out: Output, approver: Approver) -> None:
    """Have the messages answered; what goes wrong is said here and on the page, which stays open."""
    server.note = "the models answer; where one has to be started, its price waits for your yes in the terminal"
    try:
        server.sitting.ask(approver)
        errors = server.sitting.errors
        server.note = f"{len(errors)} not answered: {next(iter(errors.values()))}" if errors else ""
    except ApprovalPending:  # nobody is at the terminal to say yes: the page would wait for ever
        raise
    except TunesmithError as error:
        out.say(str(error))
        server.note = str(error)
    finally:
        out.let_go()
