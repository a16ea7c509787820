"""What a client process occupies in all, predicted: libraries, base, and what training holds."""

import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from comigs.config.model import DataConfig
from comigs.config.settings import RunConfig
from comigs.costs.memory import peak_memory
from comigs.federation.run import Client, resolve

_PROBE = "from comigs.lean import leave_out; leave_out(); from {} import probe; print(probe())"


def process_memory(client: Client) -> int:
    """Predict the peak resident bytes of a process that trains `client` alone.

    Raises:
        BadInput: as `comigs.costs.memory.peak_memory`.
    """
    return library_memory() + peak_memory(client).total


@lru_cache(maxsize=1)
def library_memory() -> int:
    """Resident bytes of a client process without its model: Python, torch, transformers, comigs.

    Measured by a process that does one small step, since builds of torch differ by a gigabyte.
    """
    command = [sys.executable, "-c", _PROBE.format(__name__)]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def peak_resident() -> int:
    """The most bytes that this process has had in memory, files that it maps included."""
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def probe() -> int:
    """Train one step of the bundled model on a few words; return what is not that model's."""
    from comigs.local.round import Order, train_round

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "client.txt").write_text("a few words of made-up text\n" * 40)
        config = RunConfig(
            data=DataConfig(name=folder, seq_len=8), rounds=1, local_steps=1, batch_size=1
        )
        client = resolve(config).client(0)
        train_round(Order(client, 1, 0, {}, Path(folder, "state")))
        return peak_resident() - peak_memory(client).total
