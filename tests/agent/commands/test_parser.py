"""The command line as it is parsed: each option wherever it stands, words that stand for others, newcomers' words."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.fixtures.tables import table
from tunesmith.agent.commands import parser as command_line
from tunesmith.agent.commands.parser import SERVE_ACTIONS, build, parse
from tunesmith.agent.commands.parser_errors import Parser
from tunesmith.agent.commands.same_words import MEANT, SAME_AS
from tunesmith.memory.errors import BadInput
from tunesmith.tools.pipeline import catalog

Chain = tuple[tuple[str, Parser], ...]
"""The words of a command, each with its parser; the first is that of the whole line."""


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Parser:
    """One parser for all lines of a test, with the fields of every request."""
    made = build()
    for _, parser in (chain[-1] for chain in commands(made)):
        if parser.add_fields is not None:
            parser.add_fields()
            parser.add_fields = lambda: None
    monkeypatch.setattr(command_line, "build", lambda: made)
    return made


def commands(parser: Parser, chain: Chain = ()) -> Iterator[Chain]:
    """Every command."""
    chain = chain or (("", parser),)
    yield chain
    for word, below in actions(parser).items():
        yield from commands(below, (*chain, (word, below)))


def actions(parser: Parser) -> dict[str, Parser]:
    """What stands below a command, by name."""
    below = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {word: one for named in below for word, one in named.items()}


def words_of(parser: Parser) -> list[str]:
    """A word for each place of a command that takes one."""
    places = [action for action in parser._actions if not action.option_strings]
    return [next(iter(a.choices)) if a.choices else "7" if a.type is int else f"a-{a.dest}" for a in places]


def typed_as(option: str, action: argparse.Action) -> Iterator[tuple[list[str], Any]]:
    """An option as it may be typed with a value, and what is read of it."""
    if action.nargs == 0:
        yield [option], action.const
        return
    text = str([*action.choices][-1]) if action.choices else "7" if action.type else "a-value"
    value = action.type(text) if callable(action.type) else text
    value = [value] if action.nargs == "+" or isinstance(action, argparse._AppendAction) else value
    yield [f"{option}={text}"], value
    yield [option, text], value


def placed(chain: Chain) -> Iterator[tuple[list[str], list[str], str, Any]]:
    """Lines of a command with an option: behind the word whose option it is, and last; each without it, its dest and
    its value. Of a command that is none without an action, those of its actions."""
    if any(isinstance(action, argparse._SubParsersAction) and action.required for action in chain[-1][1]._actions):
        return
    parsers, path = [parser for _, parser in chain], [word for word, _ in chain[1:]]
    words = words_of(parsers[-1]) if path and not actions(parsers[-1]) else []
    for depth, parser in enumerate(parsers):
        for action in parser._actions:
            if action.dest in ("help", "version") or (action.dest == "prompt" and path):
                continue  # they print and leave; a whole turn takes no command
            agreed = ["--yes"] if action.dest == "max_hours" else []  # which it limits
            line, at = [*agreed, *path, *words], len(agreed) + depth
            for typed, value in (one for option in action.option_strings for one in typed_as(option, action)):
                # A list takes every word up to the next option.
                ends = ["--"] if len(typed) == 2 and action.nargs == "+" and line[at:] else []
                yield [*line[:at], *typed, *ends, *line[at:]], line, action.dest, value
                if parser is parsers[-1]:
                    yield [*line, *typed], line, action.dest, value


def read(line: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    args, rest = parse(line)
    return {name: value for name, value in vars(args).items() if name != "spelled"}, rest


def test_an_option_is_read_alike_before_and_behind_the_words_of_every_command(whole: Parser) -> None:
    """Its value stands in its own place, and all else is read as it is without the option."""
    wrong, lines = list[str](), 0
    for chain in commands(whole):
        for line, without, dest, value in () if chain[-1][0] == "help" else placed(chain):
            lines += 1
            try:
                expected, rest = read(without)
                if read(line) != ({**expected, dest: value}, rest):
                    wrong.append(f"{line}: {read(line)}")
            except BadInput as error:
                wrong.append(f"{line}: {error}")
    assert lines > 2_000 and not wrong, "\n".join(wrong)


@table(
    ("typed", "read_as"),
    [
        (("serve", "--arm", "adapter"), {"field:arm": "adapter"}),
        (("serve", "--arm", "merged", "r1"), {"field:arm": "merged", "what": "r1"}),
        (("serve", "r1", "--arm=merged"), {"field:arm": "merged", "what": "r1"}),
        (("--json", "serve", "--context_tokens", "512", "merged"), {"field:context_tokens": "512", "what": "merged"}),
        (("--max-hours", "1", "--yes", "serve", "--accept", "stop", "r1"), {"field:accept": "stop", "what": "r1"}),
        (("serve", "--approve", "01234567"), {"approve": "01234567"}),
        (("serve", ""), {"what": ""}),
    ],
)
def test_serve_with_a_model_or_an_option_is_a_deployment(typed: Sequence[str], read_as: dict[str, str]) -> None:
    args, rest = read(typed)
    assert args["command"] == catalog.maker_of("deployment") and not rest
    told = {name: value for name, value in args.items() if name.startswith("field:") or name in ("what", "approve")}
    assert {name: value for name, value in told.items() if value is not None} == read_as


def test_serve_alone_status_and_stop_deploy_nothing() -> None:
    for words in ((), *((action,) for action in SERVE_ACTIONS)):
        args, _ = read(("--json", "serve", *words))
        assert (args["command"], args["action"]) == ("serve", words[0] if words else None)
        assert read(("--yes", "serve", *words))[0]["action"] == args["action"], "a yes to nothing is no mistake"
        for more in (("--port", "8099"), ("port=8099",)) if words else ():
            with pytest.raises(BadInput, match="takes no option but --json"):
                parse(("serve", *words, *more))


def test_a_word_that_stands_for_another_takes_what_that_one_takes(whole: Parser) -> None:
    """But for the option that the word itself is: its value stands alone."""
    by_path = {tuple(word for word, _ in chain[1:]): chain[-1][1] for chain in commands(whole)}
    for word, same in SAME_AS.items():
        parsers = by_path[(word,)], by_path[tuple(part for part in same.words if not part.startswith("--"))]
        own, other = ({one.dest for one in p._actions if one.help != argparse.SUPPRESS} for p in parsers)
        assert own == other and not {*same.words} & parsers[0]._option_string_actions.keys(), word
    assert read(("pull", "--role", "teacher", "a/b"))[0] == read(("base", "--model", "a/b", "--role", "teacher"))[0]
    assert read(("resume", "--on", "ray", "r1"))[0] == read(("run", "--resume", "r1", "--on", "ray"))[0]
    assert read(("resume",))[0] == read(("run", "--resume"))[0]
    assert read(("--json", "show", "r1"))[0] == read(("runs", "show", "r1", "--json"))[0]


@table(
    ("line", "loaded"),
    [("--json train --lora-rank 4", ["train"]), ("pull x", ["base"]), ("serve r1", ["deploy"]), ("runs list", []),
     ("ask train it on base", []), ("rows import base", []), ("-p train", [])],
)  # fmt: skip
def test_only_the_request_of_the_typed_stage_is_loaded(
    line: str, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, load = list[str](), catalog.Entry.load
    monkeypatch.setattr(catalog.Entry, "load", lambda entry: [seen.append(entry.name), load(entry)][1])
    parse(line.split())
    assert seen == loaded


def test_no_command_is_a_newcomers_word() -> None:
    """Else its answer would never be read, or would hide the command."""
    assert not MEANT.keys() & actions(build()).keys() and "train" not in MEANT


@table(
    ("line", "told"),
    [
        ("chat", "no command 'chat'; `tunesmith` alone starts the conversation"),
        ("finetune Qwen/Qwen3-8B", "`tunesmith teach --rows FILE`"),
        ("fine-tune x.yaml --json", "`tunesmith teach FILE`"),
        ("init", "`tunesmith teach --example`"),
        ("tach", "no command 'tach'; did you mean 'teach'? `tunesmith --help` lists the commands"),
        ("--modle foo", "no option '--modle'; `tunesmith --help` lists the commands"),
        ("--modle=foo chat", "no option '--modle'; `tunesmith --help`"),
        ("teach --modle foo", "no option '--modle'; did you mean '--model'? `tunesmith teach --help` lists its"),
        ("rows --knd keep", "no option '--knd'; did you mean '--kind'? `tunesmith rows --help` lists its options"),
        ("--json -p- tach", "no command 'tach'"),
        ("demo x", "unexpected argument 'x'; `tunesmith demo --help` lists its options"),
        ("pull", "MODEL is missing; `tunesmith pull --help` lists its options"),
        ("help tach", "did you mean 'teach'?"),
    ],
)
def test_a_wrong_word_is_answered_with_what_to_type(line: str, told: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse(line.split())
    assert told in str(refused.value) and refused.value.exit_code == 2


@table(("line", "begins"), [("help", "tunesmith "), ("help teach", "tunesmith teach"),
                            ("--json help runs show", "tunesmith runs show")])  # fmt: skip
def test_help_prints_the_help_of_a_command(line: str, begins: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(line.split())
    assert ended.value.code == 0 and capsys.readouterr().out.startswith(f"usage: {begins} [-h]".replace("  ", " "))
