"""What a user does with a finished run: write text."""

from pathlib import Path

import torch
from peft import PeftModel

from comigs.backbone.base import load_tokenizer
from comigs.config.load import read_config
from comigs.data.encoding import encode, opening
from comigs.errors import BadInput
from comigs.federation.run import Client, resolve
from comigs.hardware import resolve_device, use_device
from comigs.seeds import derive
from comigs.use.final import final_model


def open_client(folder: Path, number: int) -> tuple[Client, PeftModel]:
    """A client of a finished run, and the model that it ended with.

    Raises:
        BadInput: there is no such client, or the run is not finished.
    """
    run = resolve(read_config(folder))
    count = len(run.names)
    if not 0 <= number < count:
        raise BadInput(f"--client is {number}; this run has clients 0 to {count - 1}")
    client = run.client(number)
    return client, final_model(client, folder)


def generate_text(
    folder: Path, client: int, prompt: str, tokens: int, seed: int, device: str = "cpu"
) -> str:
    """Return the prompt and its continuation by the client's final model.

    Args:
        device: where it computes: auto, cpu, cuda, cuda:1 or mps.

    Raises:
        BadInput: when the run, the client or the prompt is unusable.
    """
    use_device(resolve_device(device))
    own, model = open_client(folder, client)
    tokenizer = load_tokenizer(own.config.model.name)
    begin = opening(tokenizer)
    start = [] if begin is None else [begin]
    ids = torch.tensor([[*start, *encode(tokenizer, prompt).tolist()]], dtype=torch.long)
    limit = getattr(model.config, "max_position_embeddings", None)
    if ids.shape[1] == 0:
        raise BadInput("the prompt is empty")
    if limit and ids.shape[1] + tokens > limit:
        raise BadInput(
            f"prompt ({ids.shape[1]} tokens) and --tokens {tokens} exceed the model's context of "
            f"{limit}"
        )
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, "generate"))
        out = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=torch.ones_like(ids).to(model.device),
            max_new_tokens=tokens,
            do_sample=True,
            top_p=0.9,
            temperature=0.8,
            pad_token_id=tokenizer.eos_token_id,
        )
    return tokenizer.decode(out[0], skip_special_tokens=True)
