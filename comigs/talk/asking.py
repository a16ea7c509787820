"""What a model reads before it writes, and what ends that: of plain text, and of chats."""

from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from comigs.data.chats import Chat, Unfit
from comigs.data.encoding import encode, opening
from comigs.data.template import NEXT, behind_answers, chat_prompt
from comigs.errors import BadInput

OTHERS = tuple(f"{NEXT}{role}:" for role in ("User", "System"))


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """A text as a sequence of training begins.

    Raises:
        BadInput: it is empty.
    """
    begin = opening(tokenizer)
    ids = [*([] if begin is None else [begin]), *encode(tokenizer, text).tolist()]
    if not ids:
        raise BadInput("the prompt is empty")
    return tuple(ids)


def chat_ids(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> tuple[int, ...]:
    """A chat up to the answer that is to come, with the template of training.

    Raises:
        BadInput: the template refuses it.
    """
    try:
        prompt = chat_prompt(tokenizer, chat)
    except Unfit as error:
        raise BadInput(f"the chat cannot be asked: {error}") from None
    if not tokenizer.chat_template:
        return text_ids(tokenizer, prompt)
    return tuple(encode(tokenizer, prompt).tolist())


def ends_of(settings: Any, tokenizer: PreTrainedTokenizerBase, chat: bool) -> frozenset[int]:
    """Tokens that end what is written.

    Args:
        settings: the model's generation settings.
        chat: whether an answer is written, which ends where the template ends it, too.

    Raises:
        BadInput: the template refuses a question and its answer.
    """
    own = settings.eos_token_id
    ends = {own} if isinstance(own, int) else set(own or ())
    if chat:
        if tokenizer.eos_token_id is not None:
            ends.add(tokenizer.eos_token_id)
        try:
            behind = tokenizer(behind_answers(tokenizer), add_special_tokens=False)["input_ids"]
        except Unfit as error:
            raise BadInput(f"chats cannot be answered: {error}") from None
        if behind and behind[0] in tokenizer.all_special_ids:
            ends.add(behind[0])
    return frozenset(ends)


def stops_of(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Texts that end an answer in a chat: the plain template's next turn, if a model goes on."""
    return () if tokenizer.chat_template else OTHERS
