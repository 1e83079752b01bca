"""A row gives a case away by what it shares with it, in every script."""

from __future__ import annotations

from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.leakage import LeakGate


def test_a_run_of_a_case_leaks_in_a_script_without_spaces() -> None:
    case = Case(
        case_id="c", suite="s", messages=({"role": "user", "content": "请问我昨天在你们店里买的那双鞋子可以退吗"},)
    )
    gate = LeakGate([case], "message", 85)
    pair = gate.check("r", ["你好啊，我昨天在你们店里买的那双鞋子，颜色实在是太难看了，而且还有点小，怎么办呢"])
    assert pair is not None and pair.how == "8-gram"
    assert gate.check("r", ["请问我昨天买的书什么时候到"]) is None
