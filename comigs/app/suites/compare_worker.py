"""A worker process of `comigs compare`: runs configurations it reads from standard input.

One JSON object a line: {"config", "folder", "report"} in, {"error"} out. The base model and the
token streams stay loaded between runs.
"""

import json
import logging
import shutil
import sys
from pathlib import Path

from comigs.app import run as api
from comigs.errors import ComigsError
from comigs.heap import own_process


def main() -> None:
    """Answer requests until standard input ends."""
    own_process()
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        folder, report, error = Path(request["folder"]), request["report"], None
        try:
            if (folder / "config.yaml").exists():
                api.resume(folder, report=report)
            else:
                shutil.rmtree(folder, ignore_errors=True)
                api.run(request["config"], out=folder, report=report)
        except (ComigsError, OSError) as failure:
            error = str(failure)
        print(json.dumps({"error": error}), file=answers, flush=True)


if __name__ == "__main__":
    main()
