"""A model card made from the records of a run: what was taught, on which data, how it was measured, what it lacks.

Every figure is the store's. Nothing of a model's answers is in it, and no row of the data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import clip, one_line, percent, plain
from tunesmith.tools.report import process, story
from tunesmith.tools.report.evaluation import Evaluation, evaluation

_FRONT = re.compile(r"\A---\n(.*?)\n---", re.S)
_FRONT_CHARACTERS = 1 << 20
_LICENSE = re.compile(r"^(license(?:_name|_link)?): *([\w.\-+:/ ]{1,200})$", re.M)
LICENSE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "USE_POLICY.md")
"""What a base's folder may hold of its terms, taken along."""


def license_of(base: Artifact) -> Mapping[str, str]:
    """A base's licence as a hub's front matter says it; empty where neither its record nor its own card does."""
    if recorded := str(base.meta.get("license") or ""):
        return {"license": recorded.lower()}
    card = base.path / "README.md"
    front = None
    if card.is_file():
        with card.open(encoding="utf-8", errors="replace") as file:
            front = _FRONT.match(file.read(_FRONT_CHARACTERS))
    return dict(_LICENSE.findall(front[1])) if front else {}


def model_card(store: Store, model: Artifact, base: Artifact, arm: str) -> str:
    """The card of a run's adapter, merged or quantized model, as Markdown with a hub's front matter."""
    run, steps = store.run(model.run), store.steps(model.run)
    measured = evaluation(store, model.run)
    title = _words(run.name) or model.run
    sections = [
        _front_matter(base, arm),
        f"# {title}\n\n{_words(story.outcome(run, steps, measured))}.",
        _section("Base and licence", _base_lines(base)),
        _section("Data", _data_lines(store, model.run)),
        _section("Training", _training_lines(store, model)),
        _section("Evaluation", _evaluation_lines(measured)),
        _section("Limits", (f"- {_words(line)}" for line in story.limits(steps, measured))),
        _section("Where it comes from", (f"- {_words(line)}" for line in process.ancestry(store, model.id))),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(base: Artifact, arm: str) -> str:
    fields = {
        "base_model": str(base.meta.get("source") or base.meta.get("name") or base.id),
        **(license_of(base) or {"license": "unknown"}),
        "library_name": "peft" if arm == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
    }
    # JSON is YAML, once it holds nothing that YAML takes for the end of a line.
    lines = [f"{name}: {json.dumps(one_line(value), ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "tags: [tunesmith, lora]", "---"])


def _section(title: str, lines: Iterator[str]) -> str:
    return f"## {title}\n\n" + ("\n".join(lines) or "Nothing is recorded.")


def _words(text: str) -> str:
    """Text of a user or a model, on one line and without Markdown of its own."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", clip(one_line(text), 2000))


def _base_lines(base: Artifact) -> Iterator[str]:
    name, revision = base.meta.get("name", base.id), base.meta.get("revision")
    yield f"- base: {_words(str(name))}" + (f", revision {_words(str(revision))}" if revision else "")
    yield f"- its files: sha256 {base.sha256}"
    terms = license_of(base)
    yield (
        f"- licence of the base, which holds for what is made of it too: {_words(terms.get('license', ''))}"
        if terms
        else "- licence of the base: not recorded, and not in its files; read it where the base came from before this "
        "is given to anybody"
    )


def _data_lines(store: Store, run: str) -> Iterator[str]:
    rows = process.training_rows(store, run)
    if rows is None:
        return
    yield f"- {rows.kept} rows kept of {rows.total}; {rows.validation} of them held out of training"
    for origin, count in rows.origins.items():
        yield f"- {count} kept rows of origin {_words(origin)}"
    for reason in rows.reasons:
        yield f"- {reason.rows} rows dropped: {_words(reason.kind)}"


def _training_lines(store: Store, model: Artifact) -> Iterator[str]:
    adapter = model if model.kind == "adapter" else store.ancestor(model, "adapter")
    steps = [store.step(adapter.step)] if adapter else []
    for training in process.trainings(store, steps):
        for name, value in {**training.settings, **training.outcome}.items():
            yield f"- {name}: {_words(plain(value))}"


def _evaluation_lines(measured: Evaluation) -> Iterator[str]:
    if not measured.arms:
        return
    yield "Passed of graded cases, with 95 % intervals.\n"
    yield f"| block | {' | '.join(map(_words, measured.arms))} |"
    yield f"|---|{'---|' * len(measured.arms)}"
    for block in measured.blocks:
        yield f"| {_words(block)} | {' | '.join(_score(measured, block, arm) for arm in measured.arms)} |"
    yield ""
    for evidence in measured.evidence.values():
        yield f"- {_words(evidence.verdict.sentence)}"
    for sentence in [one.sentence for one in measured.retained]:
        yield f"- {_words(sentence)}"


def _score(measured: Evaluation, block: str, arm: str) -> str:
    score = measured.score(block, arm)
    if score is None or score.rate is None:
        return "not measured"
    return f"{score.passed} of {score.graded} ({percent(score.low)} to {percent(score.high)})"
