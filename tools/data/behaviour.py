"""A behaviour on disk: its file, read as a spec or as what a user says and states as data; and its folder, written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write, new_folder
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.core.format import count, listed
from tunesmith.tools.core.local_paths import BUNDLED_BEHAVIOUR, bundled_behaviour, expanded, is_folder
from tunesmith.tools.core.plain_file import read_plain_text
from tunesmith.tools.core.wrong_values import first_wrong, unknown
from tunesmith.tools.core.yaml_file import BrokenYaml, dump_yaml, read_yaml
from tunesmith.tools.data.answer_shape import json_examples, object_paths
from tunesmith.tools.data.description import EXAMPLES_MIN, Description, Example, distinct, slug
from tunesmith.tools.data.examples import example_problems
from tunesmith.tools.data.proposal import STATED, Proposal, stated_in, with_call
from tunesmith.tools.data.spec import ANSWER_CHARACTERS_MAX, Answer, Spec, as_document
from tunesmith.tools.data.verify import verified
from tunesmith.tools.serving.spec import MAX_ANSWER_TOKENS
from tunesmith.tools.suites.leakage import LEAK, LeakGate
from tunesmith.tools.suites.loading import load_named_suites

SPEC_FILE, REHEARSAL = "behaviour.yaml", "rehearsal.txt"
IMPORTED = "imported"
"""What rows are of that came without a behaviour."""
_ROWS_AS_EXAMPLES = 12
"""Rows that stand for a behaviour that nobody described: from thirteen on ten of a description become blind cases."""
_MAX_REHEARSAL_BYTES = 10 << 20
"""About 100,000 prompts; the folder may be a stranger's."""


def behaviour_folder(name: str) -> Path:
    """Where a behaviour lies: the bundled one in the package, else the folder of the file or the folder itself."""
    if name == BUNDLED_BEHAVIOUR:
        return bundled_behaviour()
    path = expanded(name)
    return path if is_folder(path) else path.parent


def described_in(home: Path) -> dict[str, Path]:
    """The behaviours that were described in a home: name → folder."""
    return {path.parent.name: path.parent for path in sorted((home / "behaviours").glob(f"*/{SPEC_FILE}"))}


def described_folder(home: Path, name: str) -> Path:
    """The folder of a behaviour that was described in a home. Raises BadInput with those that there are."""
    known = described_in(home)
    if name in known:
        return known[name]
    none = f"no behaviour {name[:60]!r} was described" if name else "no behaviour is being described"
    there = f"; described before are {listed([*known], 8)}" if known else ""
    raise BadInput(f"{none}{there}; describe it with describe_behaviour, or name one that is there, or demo")


def own_suites(name: str) -> tuple[str, ...]:
    """The suites in a behaviour's own folder, by their paths; of the bundled one its name stands for them."""
    if not name or name == BUNDLED_BEHAVIOUR:
        return (name,) if name else ()
    path = expanded(name)
    if not is_folder(path) and path.name != SPEC_FILE:  # a file among others has no folder of its own
        return ()
    return tuple(str(path) for path in sorted((behaviour_folder(name) / "suites").glob("*.yaml")))


def untested(spec: Spec, behaviour: str) -> Spec:
    """The spec without the near misses that a suite of its own asks, or nearly: what tests is not trained on."""
    if not spec.near_misses:
        return spec
    named = own_suites(behaviour)
    gate = LeakGate(load_named_suites(named).cases if named else (), spec.slot, LEAK)
    left = tuple(text for text in spec.near_misses if gate.check("", [text], digits_count=True) is None)
    return spec.model_copy(update={"near_misses": left})


def load_behaviour(name: str) -> Spec:
    """Read the spec of a behaviour: the bundled one, a YAML file, or a folder with behaviour.yaml. Raises BadInput.

    Of a file that only says what a user would say (say, when, what, never, examples), code takes what it states as data
    (labels, fields, template) and what its examples show; its words are read by who asks a model to (`reading`).
    """
    return spec_of(*document_in(bundled_behaviour() if name == BUNDLED_BEHAVIOUR else expanded(name)))


def document_in(path: Path) -> tuple[object, str]:
    """The document in a behaviour's file, or in the one of a folder, and the file's name. Raises BadInput."""
    file = path / SPEC_FILE if is_folder(path) else path
    named = file.suffix.lower() in (".yaml", ".yml", ".json")
    document: object = ""
    with suppress(*(() if named else (BrokenYaml,))):
        document = read_yaml(file, through_link=file == path)
    if isinstance(document, str) or not (named or (isinstance(document, dict) and document.keys() & {*_TAKEN})):
        raise BadInput(
            f"{file} is plain text. For plain words start `tunesmith` and say it there; a description file needs when, "
            "what and three examples: `tunesmith teach --example` writes one"
        )
    return document, str(file)


def behaviour_of_rows(named: str, rows: Iterable[TrainingRow]) -> Spec:
    """The behaviour that rows are of; where they name none, the one that they show and nobody told.

    Raises BadInput for a behaviour that cannot be read, and for fewer than 3 different rows that name none.
    """
    if named:
        return load_behaviour(named)
    examples = distinct(islice(filter(None, map(_example_of, rows)), _ROWS_AS_EXAMPLES))
    if len(examples) < EXAMPLES_MIN:
        raise BadInput(f"{len(examples)} different rows can be read, {EXAMPLES_MIN} are needed; add rows")
    statement = "as the rows show"
    return Spec(name=IMPORTED, when=statement, what=statement, never=statement, examples=examples, described=False)


def _example_of(row: TrainingRow) -> Example | None:
    """A row as an example; None for one that could be none: critique says what is wrong with it."""
    if not row.prompt or not row.completion:
        return None
    try:
        return Example(prompt=str(row.prompt[-1].get("content") or ""), answer=row.answer)
    except ValidationError:  # critique says of the row itself what is wrong
        return None


def spec_of(document: object, where: str) -> Spec:
    """The completed spec of a document; `where` names it in an error."""
    spec, stated = words_of(document, where)
    completed = verified(spec, stated).spec
    if is_complete(spec) and (problem := next(example_problems(completed), "")):
        raise BadInput(f"{where}: {problem}; correct the example, or the spec")
    return completed


_OURS = (
    "spec",
    "slot",
    "prompt",
    "situations",
    "writing",
    "blind_sha256",
    "blind",
    "words_sha256",
    "unstated",
    "described",
)
_TAKEN = tuple(dict.fromkeys(("say", "when", "what", "never", "examples", *STATED, *Spec.model_fields)))
"""Fields of a behaviour's file; a person who asks which there are is not told of those that are ours."""


def words_of(document: object, where: str) -> tuple[Spec, Proposal]:
    """What a document says, and what it states as data; nothing is completed yet. Raises BadInput."""
    if not isinstance(document, dict):
        raise BadInput(f"{where} is not a behaviour: it holds no fields such as when, what and examples")
    values = dict(document)
    kind = values.pop("kind", "examples")
    if kind != "examples":
        raise BadInput(
            f"{where}: kind is {kind!r}; leave it out and say spec: 2, when, what, never, attributes and examples"
        )
    if odd := next((str(name) for name in values if name not in _TAKEN), ""):
        raise BadInput(f"{where}: {unknown(repr(odd), odd, [name for name in _TAKEN if name not in _OURS])}")
    stated = {name: values.pop(name, None) for name in STATED}
    _move_form(values, stated)
    values = {**_unsaid(values), **{name: value for name, value in values.items() if value not in (None, "")}}
    _enough_examples(values.get("examples"), where)
    try:
        spec = with_call(Spec.model_validate(values))
    except ValidationError as error:
        raise BadInput(f"{where}: {first_wrong(error, Spec)}") from None
    return spec, stated_in(stated, where, object_paths(json_examples(spec.examples)))


def _move_form(values: dict[str, object], stated: dict[str, object]) -> None:
    """Of an answer without attributes, its template beside the fields: what its parts are the examples show."""
    answer = values.get("answer")
    known = {"form", "template", "language", "otherwise"}
    if values.get("attributes") or not isinstance(answer, dict) or answer.keys() - known:
        return
    form, shapes = answer.get("form", "text"), any(stated.values()) or answer.get("template")
    if form == "json" or (form in ("text", "lines") and shapes and not (stated["template"] and answer.get("template"))):
        stated["template"] = stated["template"] or answer.get("template")
        stated["form"] = answer.get("form")
        values["answer"] = {key: answer[key] for key in ("language", "otherwise") if answer.get(key)} or None


def words_in(path: Path) -> tuple[Spec, Proposal]:
    """As `words_of`, of a user's file, or of the one in a folder."""
    return words_of(*document_in(path))


def is_complete(spec: Spec) -> bool:
    """Whether a spec says what its answers are made of, so that nobody has to read its words for that."""
    return bool(spec.attributes) or spec.answer.model_copy(update={"otherwise": ""}) != Answer()


def _unsaid(values: Mapping[str, object]) -> dict[str, str]:
    """What stands for the parts that nobody said: of the wish, else of what the examples show."""
    say = str(values.get("say") or "").strip()
    return {
        "name": slug(say or str(values.get("what") or "behaviour")),
        "when": say or "the message is of the same kind as those of the examples",
        "what": say or "an answer in the form and the manner of the examples",
        "never": "say anything that was not asked for",
    }


def _enough_examples(examples: object, where: str) -> None:
    """Examples are the one thing that nothing can stand for. Raises BadInput."""
    if examples and not isinstance(examples, list):
        raise BadInput(f"{where}: examples is no list; write each as a line of its own: - {{prompt: …, answer: …}}")
    given = len(examples) if isinstance(examples, list) else 0
    if given < EXAMPLES_MIN:
        raise BadInput(f"{where} has {count(given, 'example')}; give at least {EXAMPLES_MIN} (prompt + answer)")


def load_rehearsal(name: str) -> list[str]:
    """The ordinary prompts that keep the rest of the model as it was, one a line; none where there is no file.

    Raises BadInput for what is no plain file of bounded size in the behaviour's own folder: it becomes training rows.
    """
    path = behaviour_folder(name) / REHEARSAL
    if not os.path.lexists(path):
        return []
    text = read_plain_text(path, _MAX_REHEARSAL_BYTES, through_link=False)
    lines = (line.strip() for line in text.splitlines())
    return [line.replace("\\n", "\n") for line in lines if line and not line.startswith("#")]


def pins_of(spec: Spec, rehearsal: Sequence[str]) -> dict[str, str]:
    """Digests of everything that a behaviour folder gives to training, for a plan to be bound to."""
    listed = json.dumps(list(rehearsal), ensure_ascii=False)
    return {"behaviour": spec.sha256, "rehearsal prompts": hashlib.sha256(listed.encode()).hexdigest()}


_HEADER = (
    "# A behaviour as it was described, with what was proposed beside it: change any field.\n"
    "# A rule that asks too much may be removed here and in the files of suites/.\n\n"
)
_ORDER = (
    "spec", "name", "say", "when", "what", "never", "prompt", "slot", "examples", "near_misses", "attributes", "answer",
    "rules", "criteria",
)  # fmt: skip


def spec_text(spec: Spec) -> str:
    """The behaviour as its behaviour.yaml."""
    document = as_document(spec)
    known = {name: document[name] for name in _ORDER if name in document}
    return _HEADER + dump_yaml({**known, **{k: v for k, v in document.items() if k not in known}})


_NEAR_MISSES, _TEST_SEED = 12, 880_402
"""Near misses that are made in code for the suite, and what they are drawn with: enough to notice an answer that comes
always. Critique puts those beside them that a writer made and a reader checked."""


def check_answer_lengths(description: Description) -> None:
    """Raises BadInput for an answer that no model here could give whole."""
    for number, example in enumerate(description.examples, 1):
        if len(example.answer) > ANSWER_CHARACTERS_MAX:
            raise BadInput(
                f"the answer of example {number} has {len(example.answer):,} characters; a model is given "
                f"{MAX_ANSWER_TOKENS:,} tokens for an answer, about {ANSWER_CHARACTERS_MAX:,} characters: shorten it, "
                "or leave it out"
            )


def write_behaviour(spec: Spec, parent: Path, *, trained: Collection[str] = (), judged: bool = True) -> Path:
    """Write the folder of a behaviour below `parent` and return it: its spec, its suites, ordinary prompts.

    It appears whole or not at all, under the spec's name or the next that is free (`name-2`); nothing is ever replaced.
    Messages that are `trained` on are no cases. `judged`: a judge reads what code cannot tell. Raises BadInput for a
    text that a suite cannot hold, and for an answer that is too long.
    """
    # Imported here, so that who only reads a behaviour starts in half the time.
    from tunesmith.tools.data.augmentation import formed_near_misses
    from tunesmith.tools.data.spec_suites import write_suites

    check_answer_lengths(spec)

    def fill(folder: Path) -> None:
        atomic_write(folder / SPEC_FILE, spec_text(spec))
        examples = (
            [] if spec.blind_sha256 else [example.prompt for example in spec.examples]
        )  # else they are trained on
        asked = [text for text in examples if text not in trained]
        near = [] if spec.every_message else formed_near_misses(spec, _TEST_SEED, asked, tests=True)[:_NEAR_MISSES]
        write_suites(spec, folder / "suites", near_misses=near, trained=trained, judged=judged)
        atomic_write(folder / REHEARSAL, (bundled_behaviour() / REHEARSAL).read_bytes())
        if load_behaviour(str(folder)) != spec.model_copy(update={"blind": ()}):
            raise BadInput("the description holds a text that its file does not give back; put it in other words")

    return new_folder(parent, spec.name, fill)
