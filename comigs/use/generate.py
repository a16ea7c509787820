"""What a user does with a finished run: write text."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from peft import PeftModel

from comigs.config.load import read_config
from comigs.federation.run import Client, resolve
from comigs.hardware import resolve_device, use_device
from comigs.talk.batch import write
from comigs.use.final import final_model
from comigs.use.stage import Stage, stages_of


def open_client(folder: Path, client: int | str) -> tuple[Client, PeftModel]:
    """A client of a finished run, by number or name, and the model that it ended with.

    Raises:
        BadInput: there is no such client, or the run is not finished.
    """
    [opened] = open_clients(folder, [client])
    return opened


def open_stages(
    folder: Path, clients: Sequence[int | str] | None, device: str = "cpu", beside: bool = False
) -> list[Stage]:
    """Clients of a finished run, ready to be asked; those on one base are on one stage.

    Args:
        clients: their numbers or names; None for all.
        device: where it computes: auto, cpu, cuda, cuda:1 or mps.
        beside: have the base speak, too, and of the first mixture its generalist.

    Raises:
        BadInput: there is no such client, or the run is not finished.
    """
    use_device(resolve_device(device))
    return stages_of(open_clients(folder, clients), beside)


def open_clients(
    folder: Path, clients: Sequence[int | str] | None
) -> list[tuple[Client, PeftModel]]:
    """Clients of a finished run, each once, and the models that they ended with.

    Args:
        clients: their numbers or names; None for all.

    Raises:
        BadInput: there is no such client, or the run is not finished.
    """
    run = resolve(read_config(folder))
    asked = range(len(run.names)) if clients is None else clients
    opened = [run.client(number) for number in dict.fromkeys(map(run.number_of, asked))]
    return [(client, final_model(client, folder)) for client in opened]


def generate_text(
    folder: Path, client: int | str, prompt: str, tokens: int, seed: int, device: str = "cpu"
) -> str:
    """Return the prompt and its continuation by the client's final model, as text.

    Args:
        device: where it computes: auto, cpu, cuda, cuda:1 or mps.

    Raises:
        BadInput: when the run, the client or the prompt is unusable.
    """
    [stage] = open_stages(folder, [client], device)
    sampling = replace(stage.sampling, tokens=tokens, seed=seed)
    asked = stage.prompt(0, prompt, sampling)
    return stage.shown(asked) + "".join(text for _, text in write(stage.batch(), [asked]))
