"""What systemd starts for a home: `python -m tunesmith.tools.serving.at_boot HOME`.

It becomes the parent of the server that was deployed last, and ends at once where that runs or nothing is deployed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tunesmith.tools.serving import servers


def main() -> int:
    """Become the supervisor of what is deployed."""
    home = Path(sys.argv[1])
    for server in reversed(servers.down(home)):  # the newest whose place is free: this process becomes its parent
        if not servers.renew_record(server):
            server.log.parent.mkdir(parents=True, exist_ok=True)
            log = os.open(server.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)  # it may quote what was asked
            # What vLLM says goes where it went before the boot; systemd's journal would be another place to look.
            for stream in (1, 2):
                os.dup2(log, stream)
            os.chdir(server.log.parent)
            command = servers.supervising(server.record)
            os.execv(command[0], command)  # in its place: systemd watches this very process
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
