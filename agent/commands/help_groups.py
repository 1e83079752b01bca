"""The commands in `tunesmith --help`, under headings. Light: the command line's help reads it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tunesmith.tools.pipeline import catalog

_GROUPS = (
    ("start here", ("setup", "doctor", "fits", "demo", "teach")),
    ("steps", ("pull", *catalog.BY_NAME, "run", "resume", "jobs", "queue")),
    ("look", ("runs", "show", "rows", "rate", "compare", "explain", "report", "pack", "verify", "suite")),
)
"""What the help puts together; every other command stands under `service`."""


class ByGroup(argparse.HelpFormatter):
    """The commands under headings, each on a line that begins with its name."""

    def _format_action(self, action: argparse.Action) -> str:
        if not isinstance(action, argparse._SubParsersAction):
            return super()._format_action(action)
        left = {listed.dest: listed for listed in action._get_subactions()}  # private, too: no other list of them
        groups = [(title, [left.pop(name) for name in names if name in left]) for title, names in _GROUPS]
        # What no group names is listed all the same.
        return "".join(self._group(*group) for group in (*groups, ("service", list(left.values()))))

    def _group(self, title: str, listed: Sequence[argparse.Action]) -> str:
        self._indent()
        lines = [self._format_action(action) for action in listed]
        self._dedent()
        return f"{'':{self._current_indent}}{title}:\n{''.join(lines)}"
