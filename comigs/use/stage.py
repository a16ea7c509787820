"""Clients of a finished run as voices over the base that they share, ready to be asked."""

from collections.abc import Sequence
from dataclasses import dataclass

from peft import PeftModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from comigs.backbone.base import load_tokenizer
from comigs.data.chats import Chat
from comigs.data.corpus import holds_chats
from comigs.errors import BadInput
from comigs.federation.run import Client
from comigs.mixture.experts import shared_expert
from comigs.talk.alone import Alone, batch_of, speakers
from comigs.talk.asking import chat_ids, ends_of, stops_of, text_ids
from comigs.talk.batch import Batch, Prompt
from comigs.talk.sampling import Sampling
from comigs.talk.voices import Voice, Voices

BASE, GENERALIST = "base", "generalist"


@dataclass(frozen=True)
class Stage:
    """Voices over one base.

    Attributes:
        names: of the voices: those of the clients, base, generalist.
        chats: of each voice whether its client was trained on chats.
        context: tokens that the model can read and write together; None where there is no bound.
        sampling: what the model's own settings say of it.
    """

    tokenizer: PreTrainedTokenizerBase
    voices: Voices | Alone
    names: tuple[str, ...]
    chats: tuple[bool, ...]
    context: int | None
    sampling: Sampling

    def batch(self) -> Batch:
        """A batch without rows yet."""
        return batch_of(self.voices, self.tokenizer)

    def prompt(self, voice: int, asked: str | Chat, sampling: Sampling) -> Prompt:
        """A text to continue, or a chat to answer in.

        Raises:
            BadInput: it is empty, or too long for the model.
        """
        chat = not isinstance(asked, str)
        ids = (
            text_ids(self.tokenizer, asked)
            if isinstance(asked, str)
            else chat_ids(self.tokenizer, asked)
        )
        if self.context and len(ids) + sampling.tokens > self.context:
            raise BadInput(
                f"the prompt ({len(ids)} tokens) and {sampling.tokens} tokens to write exceed the "
                f"model's context of {self.context}; ask for fewer",
                "prompt",
            )
        ends = ends_of(self.voices.model.generation_config, self.tokenizer, chat)
        return Prompt(voice, ids, sampling, ends, chat, stops_of(self.tokenizer) if chat else ())

    def shown(self, prompt: Prompt) -> str:
        """The tokens of a prompt as text again."""
        return str(self.tokenizer.decode(list(prompt.ids), skip_special_tokens=True))


def stages_of(opened: Sequence[tuple[Client, PeftModel]], beside: bool = False) -> list[Stage]:
    """One stage for each base that the clients stand on.

    Args:
        opened: clients with their models.
        beside: have the base speak, too, and of the first mixture its generalist.
    """
    groups: dict[object, list[tuple[Client, PeftModel]]] = {}
    for client, model in opened:
        groups.setdefault(client.config.model, []).append((client, model))
    return [_stage(some, beside) for some in groups.values()]


def _stage(opened: Sequence[tuple[Client, PeftModel]], beside: bool) -> Stage:
    names = [client.run.names[client.number] for client, _ in opened]
    chats = [_chats(client) for client, _ in opened]
    voices = [Voice(model) for _, model in opened]
    first, model = opened[0]
    if beside:
        shared = [(each, name) for _, each in opened if (name := shared_expert(each))]
        extra = [(BASE, Voice(model, bare=True))]
        extra += [(GENERALIST, Voice(each, name)) for each, name in shared[:1]]
        names += [name for name, _ in extra]
        voices += [voice for _, voice in extra]
        chats += [chats[0] for _ in extra]
    together = speakers(voices)
    own = together.model.generation_config
    sampling = Sampling(
        top_k=50 if own.top_k is None else own.top_k,
        repetition_penalty=own.repetition_penalty or 1.0,
    )
    limit = getattr(together.model.config, "max_position_embeddings", None)
    tokenizer = load_tokenizer(first.config.model.name)
    return Stage(tokenizer, together, tuple(names), tuple(chats), limit, sampling)


def _chats(client: Client) -> bool:
    return holds_chats(client.config.data.name, client.run.names[client.number], "train")
