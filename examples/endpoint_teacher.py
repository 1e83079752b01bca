"""Rows by a teacher that answers elsewhere: any endpoint that speaks OpenAI's API, in your lab or at a provider.

    python examples/endpoint_teacher.py http://127.0.0.1:8000/v1 my-large-model rows.jsonl
    python examples/arc.py --rows rows.jsonl

`generate` writes rows with a model that is served on this machine; rows of any other origin come in by `import`, and
count as yours: look at them first (`tunesmith rows review`). Sent are the behaviour's own words and examples, and never
a case of a suite. The contact is recorded like every other, by host, requests and bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tunesmith.agent.commands import settings
from tunesmith.memory.errors import ApprovalPending, BadInput, TunesmithError
from tunesmith.memory.files import atomic_write
from tunesmith.tools.data.answer_rules import broken_rule
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.serving.addresses import read_address
from tunesmith.tools.serving.client import ChatClient, ChatRequest, ChatResponse
from tunesmith.tools.serving.traffic import ContactLog

HERE = Path(__file__).parent
ROW_TOKENS = 300
"""That a message and its answer may have."""
WISH = """\
Write one training row, as one line of JSON with the keys prompt and completion, in {language}.
The prompt is a message for which this holds: {when}.
The completion is {what}
Never {never}.
Here: {about}.
Examples:
{examples}
Write another one, in other words and about something else."""


def main() -> int:
    """Say what will be sent, ask, and write what comes back and keeps the behaviour's rules."""
    args = arguments()
    try:
        spec, key = load_behaviour(str(args.behaviour)), key_in(args.key_file)
        if not args.file.absolute().parent.is_dir() or args.rows < 1:
            raise BadInput(f"{args.rows} rows cannot be written to {args.file}; name a folder that is there, and rows")
        wishes = list(itertools.islice(wishes_of(spec), args.rows))
        tokens = args.rows * ROW_TOKENS
        print(f"{args.rows} requests to {args.endpoint}, up to {tokens:,} tokens of answers; the first:\n{wishes[0]}")
        if not args.yes and not agreed():
            return 1
        rows, dropped = asyncio.run(written(spec, wishes, args, key))
        if not rows:
            raise BadInput(f"none of {args.rows} answers was a row; the last reason: {dropped[-1]}")
    except TunesmithError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    atomic_write(args.file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{len(rows)} rows in {args.file}; {len(dropped)} answers were none{f': {dropped[-1]}' if dropped else ''}")
    return 0


def agreed() -> bool:
    """Whether a person at this terminal agrees. Raises ApprovalPending where nobody is there."""
    try:
        return input("send them? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        raise ApprovalPending("nothing was sent; start this at a terminal, or with --yes") from None


def wishes_of(spec: Spec) -> Iterator[str]:
    """What is asked for each row: every combination of the answer's labels in turn, so that none is rare."""
    labels = [[(one.name, name, of.means) for name, of in one.values.items()] for one in spec.attributes if one.values]
    rows = ({"prompt": one.prompt, "completion": one.answer} for one in spec.examples)
    examples = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    said = {"language": spec.language or "English", "when": spec.when, "what": spec.what, "never": spec.never}
    for chosen in itertools.cycle(itertools.product(*labels)):
        about = "; ".join(f"{attribute} is {value} ({means})" for attribute, value, means in chosen)
        yield WISH.format(about=about or "anything of that kind", examples=examples, **said)


async def written(
    spec: Spec, wishes: list[str], args: argparse.Namespace, key: str
) -> tuple[list[dict[str, str]], list[str]]:
    """The rows that the teacher wrote, and why its other answers are none."""
    url = str(args.endpoint).rstrip("/").removesuffix("/v1")
    rows, dropped = list[dict[str, str]](), list[str]()

    def take(response: ChatResponse) -> None:
        try:
            row = row_of(response, spec)
        except ValueError as error:
            dropped.append(str(error))
        else:
            rows.append(row)

    log = ContactLog(settings.load().home, read_address(url), "teacher")
    requests = [
        ChatRequest(str(number), args.model, [{"role": "user", "content": wish}], ROW_TOKENS, temperature=0.8)
        for number, wish in enumerate(wishes)
    ]
    async with ChatClient(url, key, recorder=log) as client:
        await client.complete_many(requests, concurrency=8, on_result=take)
    return rows, dropped


def key_in(file: Path | None) -> str:
    """The endpoint's key; empty where it needs none. Raises BadInput."""
    try:
        return file.read_text().strip() if file else ""
    except OSError as error:
        raise BadInput(f"cannot read the key in {file}: {error.strerror}") from None


def row_of(response: ChatResponse, spec: Spec) -> dict[str, str]:
    """The row in an answer. Raises ValueError for an error, for what is no row, and for one that breaks a rule."""
    if response.error:
        raise ValueError(response.error)
    row = json.loads(response.text[response.text.find("{") : response.text.rfind("}") + 1])
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("prompt", "completion")):
        raise ValueError("it has no prompt or no completion")
    if broken := broken_rule(spec.rules, row["completion"]):
        raise ValueError(f"it breaks a rule: {broken.says}")
    return {"prompt": row["prompt"], "completion": row["completion"]}


def arguments() -> argparse.Namespace:
    """The options of this script."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("endpoint", help="such as http://127.0.0.1:8000/v1")
    parser.add_argument("model", help="the name to ask it for")
    parser.add_argument("file", type=Path, help="where the rows go")
    parser.add_argument("--behaviour", type=Path, default=HERE / "schadenmeldung.yaml")
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--key-file", type=Path, help="a file that holds the endpoint's key")
    parser.add_argument("--yes", action="store_true", help="send them without being asked")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
