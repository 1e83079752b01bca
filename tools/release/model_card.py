"""A model card made from the records of a run: what was taught, on which data, how it was measured, what it lacks.

Every figure is the store's. Nothing of a model's answers is in it, and no row of the data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files

from markupsafe import Markup

from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import clip, one_line, percent, plain
from tunesmith.tools.report import process, story
from tunesmith.tools.report.evaluation import evaluation

_TEMPLATE = "model-card.md.j2"
_FRONT = re.compile(r"\A---\n(.*?)\n---", re.S)
_FRONT_CHARACTERS = 1 << 20
"""A README's front matter has some lines; so much is looked through for its end."""
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
        # A README may be in any encoding; its licence's name is ASCII.
        with card.open(encoding="utf-8", errors="replace") as file:
            front = _FRONT.match(file.read(_FRONT_CHARACTERS))
    return dict(_LICENSE.findall(front[1])) if front else {}


def model_card(store: Store, model: Artifact, base: Artifact, arm: str) -> str:
    """The card of a run's adapter, merged or quantized model, as Markdown with a hub's front matter."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    run, steps, measured = store.run(model.run), store.steps(model.run), evaluation(store, model.run)
    adapter = model if model.kind == "adapter" else store.ancestor(model, "adapter")
    trainings = process.trainings(store, [store.step(adapter.step)] if adapter else [])
    source = files("tunesmith.prompts").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    page = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, finalize=_words, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    page.filters.update(percent=percent, plain=plain)
    return _front_matter(base, arm) + page.from_string(source).render(
        title=one_line(run.name) or model.run,
        outcome=story.outcome(run, steps, measured),
        base=base,
        terms=license_of(base),
        rows=process.training_rows(store, model.run),
        training=[item for one in trainings for item in (one.settings | one.outcome).items()],
        measured=measured,
        limits=story.limits(steps, measured),
        ancestry=process.ancestry(store, model.id),
    )


def _front_matter(base: Artifact, arm: str) -> str:
    fields = {
        "base_model": str(base.meta.get("source") or base.meta.get("name") or base.id),
        **(license_of(base) or {"license": "unknown"}),
        "library_name": "peft" if arm == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
    }
    # JSON is YAML, once it holds nothing that YAML takes for the end of a line.
    lines = [f"{name}: {json.dumps(one_line(value), ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "tags: [tunesmith, lora]", "---", "\n"])


def _words(text: object) -> str:
    """Text of a user or a model, on one line and without Markdown of its own; as it is where the page says `safe`."""
    if isinstance(text, Markup):
        return text
    # a card is read by people: longer texts stand in the files beside it
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", clip(one_line(text), 2000))
