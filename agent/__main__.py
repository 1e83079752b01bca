"""`python -m tunesmith.agent` is `tunesmith`."""

from __future__ import annotations

from tunesmith.agent.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
