"""TensorBoard events of a run, made from its metrics.jsonl."""

import shutil
from pathlib import Path

from tensorboardX import SummaryWriter

from comigs.errors import BadInput
from comigs.store.metrics import events_of


def write_events(folder: Path) -> None:
    """Write RUN/events anew: loss and validation perplexity by client, time and bytes by round."""
    target = folder / "events"
    if target.is_symlink() or target.is_file():
        raise BadInput(f"{target} is no folder of this run; move it away")
    shutil.rmtree(target, ignore_errors=True)
    with SummaryWriter(str(target)) as writer:
        for event in events_of(folder):
            if event["event"] == "client":
                scalars = {
                    f"{key}/{event['name']}": event.get(key) for key in ("loss", "valid_ppl")
                }
            elif event["event"] == "round":
                keys = ("seconds", "bytes_up", "bytes_down")
                scalars = {f"round/{key}": event.get(key) for key in keys}
            else:
                continue
            for tag, value in scalars.items():
                if value is not None:
                    writer.add_scalar(tag, value, event["round"])
