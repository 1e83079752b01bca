"""Whether a written message is of the described kind, by the model that wrote it: trusted only where it can tell.

First it is tried out: on each of the user's examples, which are of the kind, and on ordinary prompts, which hardly
are. A model that cannot tell those apart is not asked further, and that is recorded in `kind.json`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence

from tunesmith.memory.files import atomic_write
from tunesmith.tools.core.job import Job
from tunesmith.tools.data.example_behaviour import ExampleBehaviour, kind_request
from tunesmith.tools.data.generate import GenerateRequest
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatResponse
from tunesmith.tools.serving.requests import Tally, ask

_SHOTS, _TRIED = 3, 20
_NO_SHARE = 0.8
"""Of ordinary prompts that must be told apart: a few may be of the kind by chance."""


class KindCheck:
    """Asks the server; `trusted` says whether its answers count."""

    def __init__(
        self,
        job: Job[GenerateRequest],
        behaviour: ExampleBehaviour,
        server: servers.Server,
        tally: Tally,
        rehearsal: Sequence[str],
    ) -> None:
        self.job, self.behaviour, self.server, self.tally = job, behaviour, server, tally
        ordinary = list(rehearsal)
        random.Random(job.request.seed).shuffle(ordinary)
        self.others, self.tried = ordinary[:_SHOTS], ordinary[_SHOTS : _SHOTS + _TRIED]
        self.trusted = self._trusted()

    def ask(self, prompts: Mapping[str, str], keep: Callable[[str, bool], None]) -> None:
        """Hand on, for each message, whether it is of the kind."""
        requests = [
            kind_request(self.behaviour, row_id, prompt, self.others, self.server.model)
            for row_id, prompt in prompts.items()
        ]
        ask(self.job, self.server, requests, lambda response: keep(response.id, _says_yes(response)), self.tally)

    def _trusted(self) -> bool:
        path = self.job.dir / "kind.json"
        if path.exists():
            return bool(json.loads(path.read_text())["trusted"])
        if not self.tried:
            return False
        model, behaviour = self.server.model, self.behaviour
        said: dict[str, bool] = {}
        examples = [
            kind_request(behaviour, f"e{place}", example.prompt, self.others, model, without=place)
            for place, example in enumerate(behaviour.examples)
        ]
        ordinary = [kind_request(behaviour, f"o{n}", text, self.others, model) for n, text in enumerate(self.tried)]
        requests = [*examples, *ordinary]
        ask(self.job, self.server, requests, lambda r: said.update({r.id: _says_yes(r)}), self.tally)
        yes = sum(said.get(request.id, False) for request in examples)
        no = sum(not said.get(request.id, True) for request in ordinary)
        trusted = yes == len(examples) and no >= _NO_SHARE * len(ordinary)
        tried = {"examples": len(examples), "told": yes, "ordinary": len(ordinary), "told_apart": no}
        atomic_write(path, json.dumps({"trusted": trusted, **tried}))
        if not trusted:
            self.job.log(f"the writer cannot tell which messages are of the kind ({tried}), so it is not asked")
        return trusted


def _says_yes(response: ChatResponse) -> bool:
    return response.text.strip().lower().startswith("yes")
