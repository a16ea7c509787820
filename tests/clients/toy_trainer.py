"""A trainer that does what a message says, for test_device.py."""

import errno
import os
import sys
import time
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from comigs_clients.trainer import serve

app = ClientApp()


@app.train()
def obey(message, context):
    folder = Path(context.node_config["state-dir"])
    match message.content.config_records["config"]["do"]:
        case "raise":
            raise RuntimeError("no text\nfor this client")
        case "fill":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "die":
            os._exit(3)
        case "die once" if not (folder / "died").exists():
            (folder / "died").touch()
            os._exit(3)
        case "hang":
            time.sleep(600)
    about = {"pid": os.getpid(), "client": context.node_config["partition-id"]}
    return Message(RecordDict({"about": ConfigRecord(about)}), reply_to=message)


if __name__ == "__main__":
    serve(sys.argv[1], app)
