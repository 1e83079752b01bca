"""Judging at work: once an arm's answers are in, the models that grading asks decide what still waits.

Grading is replayed over what the judge has answered so far: what it lacks is asked, all at once, and kept in the
step's folder as it arrives; then it is replayed again. So a killed step goes on with exactly the prompts that are
missing, and a prompt that several answers share is asked once. A judge that gives no answer, or none that can be read,
makes an error, never a failure. Judging is greedy; the arm's server has left the accelerator before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import read_manifest, sha256_file, verify
from tunesmith.memory.marks import marks_of
from tunesmith.memory.records import EvalResult
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.resumable_log import ResumableLog, read_log
from tunesmith.tools.core.stage import Request
from tunesmith.tools.data.answers import marked_pairs
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.spec_suites import criteria
from tunesmith.tools.evaluation.asking import refuse_errors
from tunesmith.tools.evaluation.judge import JUDGE_CONCURRENCY, JUDGE_CONTEXT_TOKENS, JudgeModel, Models, find_models
from tunesmith.tools.evaluation.judge_agreement import MARKS_MIN, agreement_of, record_agreement
from tunesmith.tools.machine.vllm_program import vllm_of_worker
from tunesmith.tools.models.chat_template import template_sha256, thoughts_of
from tunesmith.tools.models.template_trial import probe_template
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.addresses import read_address
from tunesmith.tools.serving.budget import placed
from tunesmith.tools.serving.client import ChatClient, ChatRequest, ChatResponse, response_format_of
from tunesmith.tools.serving.model_server import serve
from tunesmith.tools.serving.requests import chat_client
from tunesmith.tools.serving.spec import ServerSpec, engine_arguments
from tunesmith.tools.serving.traffic import ContactLog
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.suites.grading import (
    PENDING,
    Assertion,
    CannotGrade,
    Embedder,
    Response,
    grade,
    grade_pending,
    judged,
)
from tunesmith.tools.suites.grading.embedding import (
    EMBEDDER_PIN,
    embedder_sha256,
    identity,
    local_embedder,
    model_folder,
)

_REPLY_TOKENS = 400
"""For a sentence of reason and a verdict in JSON; a cut one is an error of the case."""
_MARKS_READ = 100
"""Marked answers that a judge is held against, the newest: a hundred tell its agreement, and each is asked again for
every new judge."""
_REPLIES = "judge.jsonl"


def agreed_models(job: Job[Request], suite: Suite, judge: str) -> Models:
    """The models that grading asks, as the plan shows them: answers go to no other judge, whatever settings say now.

    Raises BadInput where one is not here, StepFailed where it is another than was agreed to.
    """
    models = find_models(suite.cases, judge, job.home)
    if judge_model := models.judge:  # its folder may have moved with its home
        job.agreed_folder("judge", judge_model.folder or job.dir, judge_model.sha256)
    if models.embeds:
        job.agreed(EMBEDDER_PIN, embedder_sha256())
    return models


def judge_waiting(job: Job[Request], suite: Suite, *, judge: str, fresh: bool) -> dict[str, JsonValue]:
    """Decide every answer of this step that waits for a model, and store it.

    Returns the parts of the comparability key that name those models; none where the suite asks none. Raises BadInput
    or StepFailed where the judge cannot be served; what is decided already stays.
    """
    models = agreed_models(job, suite, judge)  # once more: settings may have changed while the answers were written
    if not models.judge and not models.embeds:
        return {}
    cases = {case.case_id: case for case in suite.cases}
    waiting = [row for row in job.store.results(job.step.id) if waits(row)]
    with ExitStack() as stack:
        embedder = stack.enter_context(local_embedder()) if models.embeds else None
        judging = _Judge(job, models.judge, fresh=fresh) if models.judge else None
        total = len(waiting)
        while waiting:
            waiting = _decide(job, cases, waiting, judging, embedder)
            job.progress(total - len(waiting), total, "judging")
            if waiting and judging:
                judging.ask_missing()
    refuse_errors(job, "verdict")
    if judging and any(case.asks_judge for case in suite.cases):
        _calibrate(job, judging)
    return _key(models, judging)


def _calibrate(job: Job[Request], judge: _Judge) -> None:
    """Hold the judge against what a person marked of the behaviour's rows; nothing where that is too little."""
    rows = job.store.artifacts(job.run, "rows")
    named = str(rows[-1].meta.get("behaviour") or "") if rows else ""
    try:
        spec = load_behaviour(named) if named else None
    except BadInput:  # its file is gone
        spec = None
    pairs = marked_pairs(marks_of(job.store, spec.name))[-_MARKS_READ:] if spec else []
    if spec is None or len(pairs) < MARKS_MIN:
        return
    asked = [Assertion(type="llm-rubric", value=criteria(spec, pair.message)) for pair in pairs]
    cases = [Case(case_id=f"mark-{n}", suite="marks", messages=(), assertions=(one,)) for n, one in enumerate(asked)]
    while True:
        grades = [grade(case, Response(pair.answer), judge=judge) for case, pair in zip(cases, pairs, strict=True)]
        if not judge.lacked():
            break
        judge.ask_missing()
    known = [(pair.right, one.passed) for pair, one in zip(pairs, grades, strict=True) if not one.error]
    agreement = agreement_of(judge.model.name, [right for right, _ in known], [passed for _, passed in known])
    record_agreement(job.store, job.run, job.step.id, agreement)
    job.log(agreement.sentence)


def waits(row: EvalResult) -> bool:
    """Whether an answer is there, and its grade waits for a model."""
    return row.passed is None and any(assertion.reason == PENDING for assertion in row.assertions)


def _key(models: Models, judge: _Judge | None) -> dict[str, JsonValue]:
    key: dict[str, JsonValue] = {**judge.identity} if judge else {}
    if models.embeds and (folder := model_folder()):
        key["embedder"] = identity(folder)
    return key


def _decide(
    job: Job[Request],
    cases: Mapping[str, Case],
    waiting: Sequence[EvalResult],
    judge: _Judge | None,
    embedder: Embedder | None,
) -> list[EvalResult]:
    """Grade and store what can be graded by now; the rest is returned."""
    decided, left = [], []
    for row in waiting:
        result = _graded(cases[row.case_id], row, judge, embedder)
        if judge and judge.lacked():
            left.append(row)
        else:
            decided.append(result)
    job.store.add_results(job.run, job.step.id, decided)
    return left


def _graded(case: Case, row: EvalResult, judge: _Judge | None, embedder: Embedder | None) -> EvalResult:
    grade = grade_pending(case, Response.stored(row), row.assertions, judge=judge, embedder=embedder)
    if grade.error:
        return replace(row, error=grade.error)  # what waits still waits: a resumed step judges it again
    return replace(row, passed=grade.passed, score=grade.score, error=None, assertions=list(grade.assertions))


class _Judge:
    """Answers with what the model has answered already; what it was never asked is missing until `ask_missing`."""

    def __init__(self, job: Job[Request], model: JudgeModel, *, fresh: bool) -> None:
        self.job, self.model, self.fresh = job, model, fresh
        self._place: _Place | None = None
        self._missing: dict[str, ChatRequest] = {}
        self._failed: dict[str, str] = {}
        self._lacked = False
        identity_file = job.dir / "judge.json"
        self.identity: dict[str, str] = json.loads(identity_file.read_text()) if identity_file.exists() else {}
        """What judged, as parts of a comparability key; empty until it was served once."""
        self._known = self._replies() if self.identity else {}

    def answer(self, prompt: str, form: Mapping[str, object]) -> str:
        """The model's reply to a prompt. Raises CannotGrade where it has none yet, or did not give one."""
        name = hashlib.sha256(f"{prompt}\n{json.dumps(form, sort_keys=True)}".encode()).hexdigest()
        if name in self._known:
            return self._known[name]
        if name in self._failed:
            raise CannotGrade(f"the judge did not answer: {self._failed[name]}")
        self._lacked = True
        self._missing[name] = ChatRequest(
            name,
            "",
            [{"role": "user", "content": prompt}],
            _REPLY_TOKENS,
            extra={"response_format": response_format_of(form, "reply")},
        )
        raise CannotGrade("the judge has not answered yet")

    def lacked(self) -> bool:
        """Whether a reply was missing since this was last asked."""
        lacked, self._lacked = self._lacked, False
        return lacked

    def ask_missing(self) -> None:
        """Put what is missing to the model; each reply is on the disk before it is used."""
        place = self._place = self._place or _served(self.job, self.model)
        self._know(place.identity)
        missing, self._missing = self._missing, {}
        requests = [replace(request, model=place.model) for name, request in missing.items() if name not in self._known]
        done = 0
        with ResumableLog(self.job.dir / _REPLIES) as log:

            def keep(response: ChatResponse) -> None:
                nonlocal done
                done += 1
                self.job.progress(done, len(requests), f"{self.model.name} judges")
                if response.error:
                    self._failed[response.id] = response.error
                    return
                log.add({"judge": self._digest, "prompt": response.id, "reply": response.text})
                self._known[response.id] = response.text

            client = chat_client(place.server) if place.server else self._endpoint()
            with servers.lease(place.server) if place.server else nullcontext():
                client.complete_all(requests, concurrency=JUDGE_CONCURRENCY, on_result=keep)

    def _endpoint(self) -> ChatClient:
        """Connections to the user's own endpoint, recorded as what leaves this machine."""
        model, job = self.model, self.job
        log = ContactLog(job.home, read_address(model.url), "judge", run=job.run, step=job.step.id)
        return ChatClient(model.url, model.key, allow_plain_http=model.allow_plain_http, section="judge", recorder=log)

    def _know(self, identity: dict[str, str]) -> None:
        """Take what judges for what it is. Raises StepFailed where another one judged a part of this step."""
        if self.identity == identity:
            return
        if changed := [name for name in identity if self.identity and self.identity.get(name) != identity[name]]:
            raise StepFailed(
                f"{changed[0]} was {self.identity.get(changed[0])!r} when judging began and is now "
                f"{identity[changed[0]]!r}; run the step anew instead of resuming it"
            )
        self.job.write_json("judge.json", identity)
        self.identity = identity
        self._known = self._replies()

    @property
    def _digest(self) -> str:
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]

    def _replies(self) -> dict[str, str]:
        """What this very judge replied in this step, and in earlier steps of the run unless all is asked afresh.

        An endpoint may serve another model under the same name by now: its earlier replies are not taken over.
        """
        own_only = self.fresh or self.model.folder is None
        folders = [] if own_only else sorted(self.job.dir.parent.iterdir())
        # The step's own come last, so that they stand where both have a prompt.
        logged = [entry for folder in (*folders, self.job.dir) for entry in read_log(folder / _REPLIES)]
        return {str(entry["prompt"]): str(entry["reply"]) for entry in logged if entry["judge"] == self._digest}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the judge answers, and what it is."""

    model: str
    identity: dict[str, str]
    server: servers.Server | None = None


def _served(job: Job[Request], model: JudgeModel) -> _Place:
    """The judge, answering. A server of its own takes the place of the arm's: one tenant at a time."""
    prompts = judged.prompts_sha256()[:12]
    if model.folder is None:
        what = {"judge": f"{model.name} at {model.url}, weights unknown", "judge_prompts": prompts}
        return _Place(model.name, what)
    vllm = vllm_of_worker(job.vllm)
    job.progress(0, 0, f"checking the judge {model.name}")
    probe_template(model.folder)
    weights, place = _weights_sha256(model.folder), placed(vllm, model.memory)
    spec = ServerSpec(
        model_dir=str(model.folder),
        served_name=f"judge-{model.name}",
        weights_sha256=weights,
        max_model_len_tokens=JUDGE_CONTEXT_TOKENS,
        max_num_seqs=JUDGE_CONCURRENCY,
        tool_parser="",
        without_thoughts=thoughts_of(model.folder) == "switch",
        **place._asdict(),  # public, whatever its name
    )
    server = serve(job, spec, vllm=vllm, log="judge.log", note="vLLM is starting with the judge")
    what = {
        "judge": f"{model.name}, weights {weights[:12]}",
        "judge_prompts": prompts,
        "judge_template": template_sha256(model.folder)[:12],
        "judge_engine": f"{server.engine} {' '.join(engine_arguments(spec))}, {spec.device}, greedy",
    }
    return _Place(server.model, what, server)


def _weights_sha256(folder: Path) -> str:
    """Identity of a judge's folder, hashed now; a sealed one must still be what its manifest says."""
    if read_manifest(folder):
        return str(verify(folder)["sha256"])
    names = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".jinja"))
    return hashlib.sha256("".join(f"{sha256_file(p)}  {p.name}\n" for p in names).encode()).hexdigest()
