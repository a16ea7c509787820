"""What a model reads of a chat, and which of it are the answers.

The template is the tokenizer's own chat template. A base without one gets the plain one below, a
line for each turn, with the tokenizer's end of text (EOS) behind what the assistant says:

    System: Be short.
    User: What is 2 + 2?
    Assistant: 4<EOS>
"""

import re
from collections.abc import Sequence
from itertools import accumulate, chain, takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from comigs.data.chats import ANSWERS, Chat, Turn, Unfit
from comigs.data.encoding import opening
from comigs.errors import BadInput, flat

NEXT = "\n"  # parts the turns of the plain template
_TELLS = re.compile(r"\{%-?\s*generation\s*-?%\}")  # a template that says itself what is generated


class Encoded(NamedTuple):
    """A chat as tokens (T), and which of them belong to answers (T, bool)."""

    tokens: Tensor
    answers: Tensor


class Rendered(NamedTuple):
    """A chat as text, and where its answers are: first character, and the one behind the last."""

    text: str
    answers: list[tuple[int, int]]


def plain_text(chat: Chat, end: str = "") -> Rendered:
    """A chat in the plain template.

    Args:
        end: what stands behind an answer and belongs to it.
    """
    parts: list[str] = []
    learnt: list[bool] = []
    for turn in chat:
        answer = turn.role == ANSWERS
        line = NEXT if parts else ""
        parts += [f"{line}{turn.role.capitalize()}:", f" {turn.content}{end if answer else ''}"]
        learnt += [False, answer]
    ends = list(accumulate(map(len, parts)))
    spans = zip([0, *ends], ends, learnt, strict=False)
    return Rendered("".join(parts), [(begin, end) for begin, end, answer in spans if answer])


def encode_chats(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Chat], everything: bool = False
) -> list[Encoded]:
    """Tokens of chats, each with its answers.

    A template may write an answer otherwise once more follows, as those of reasoning models do,
    which forget what was thought. Then each answer is an example of its own, with all before it as
    the model saw it.

    Args:
        everything: all that is said counts as an answer, and so do the words of the template.

    Raises:
        Unfit: the template refuses one, or does not tell its answers.
        BadInput: the tokenizer cannot be used for chats.
    """
    begin: list[int] = []
    if not tokenizer.chat_template:
        first, end = opening(tokenizer), tokenizer.eos_token or ""
        begin = [] if first is None else [first]
        found = _found(tokenizer, [plain_text(chat, end) for chat in chats])
    elif everything:
        whole = [_apply(tokenizer, c, place, tokenize=False) for place, c in enumerate(chats)]
        found = _found(tokenizer, [Rendered(text, []) for text in whole])
    elif _TELLS.search(tokenizer.get_chat_template()):
        found = [_told(tokenizer, chat, place) for place, chat in enumerate(chats)]
    else:
        each = (_by_prompts(tokenizer, chat, place) for place, chat in enumerate(chats))
        found = _found(tokenizer, list(chain.from_iterable(each)))
    opened, none = torch.tensor(begin, dtype=torch.long), torch.zeros(len(begin), dtype=torch.bool)
    return [
        Encoded(torch.cat([opened, tokens]), torch.cat([none, own | everything]))
        for tokens, own in found
    ]


def prompt_for(tokenizer: PreTrainedTokenizerBase, question: str) -> tuple[str, str]:
    """What stands before the answer to a question in a chat, and what parts the two.

    Raises:
        Unfit: the template refuses it.
    """
    asked = (Turn("user", question),)
    return chat_prompt(tokenizer, asked), "" if tokenizer.chat_template else " "


def chat_prompt(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str:
    """What stands before the next answer in a chat.

    Raises:
        Unfit: the template refuses it.
    """
    if tokenizer.chat_template:
        prompt: str = _apply(tokenizer, chat, 0, tokenize=False, add_generation_prompt=True)
        return prompt
    said = plain_text(chat, tokenizer.eos_token or "").text
    return f"{said}{said and NEXT}{ANSWERS.capitalize()}:"


def behind_answers(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the tokenizer's chat template puts behind an answer; "" where it has none."""
    if not tokenizer.chat_template:
        return ""
    mark = "comigs"
    chat = (Turn("user", "a"), Turn(ANSWERS, mark))
    return str(_apply(tokenizer, chat, 0, tokenize=False).rpartition(mark)[2])


def _told(tokenizer: PreTrainedTokenizerBase, chat: Chat, place: int) -> Encoded:
    """By a template that marks what is generated."""
    out = _apply(tokenizer, chat, place, return_dict=True, return_assistant_tokens_mask=True)
    return Encoded(torch.tensor(out["input_ids"]), torch.tensor(out["assistant_masks"]) > 0)


def _by_prompts(tokenizer: PreTrainedTokenizerBase, chat: Chat, place: int) -> list[Rendered]:
    """By a template that does not: an answer is what comes behind the prompt for it.

    Space that the template puts behind an answer is none of it.
    """
    single = []
    for number, turn in enumerate(chat):
        if turn.role != ANSWERS:
            continue
        asked = chat[:number]
        text = _apply(tokenizer, chat[: number + 1], place, tokenize=False)
        if asked:
            before = _apply(tokenizer, asked, place, tokenize=False, add_generation_prompt=True)
        else:  # nothing can be asked for: what any two answers have in common stands before them
            other = (Turn(ANSWERS, "b" if turn.content.startswith("a") else "a"),)
            written = _apply(tokenizer, other, place, tokenize=False)
            alike = takewhile(lambda pair: pair[0] == pair[1], zip(text, written, strict=False))
            before = text[: len(list(alike))]
        if not text.startswith(before):
            raise Unfit(
                "the model's chat template asks for an answer otherwise than it then writes it, so "
                "that the answer cannot be told apart: set data.loss=all",
                place,
            )
        single.append(Rendered(text, [(len(before), len(text.rstrip()))]))
    whole = _apply(tokenizer, chat, place, tokenize=False)
    if all(whole.startswith(one.text) for one in single):
        return [Rendered(whole, [span for one in single for span in one.answers])]
    return single


def _apply(tokenizer: PreTrainedTokenizerBase, chat: Chat, place: int, **options: Any) -> Any:
    messages = [{"role": turn.role, "content": turn.content} for turn in chat]
    try:
        return tokenizer.apply_chat_template(messages, **options)
    except Exception as error:  # a template is a program, which refuses what it does not know
        raise Unfit(f"the model's chat template refuses it ({flat(str(error), 200)})", place) from (
            None
        )


def _found(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Rendered]) -> list[Encoded]:
    """Tokens of texts; those that share a character with an answer belong to it."""
    if not chats:
        return []
    texts = [chat.text for chat in chats]
    try:
        out = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    except NotImplementedError:
        raise BadInput(
            f"the tokenizer in {tokenizer.name_or_path} does not tell where in a text its tokens "
            "are, which chats need; give a model with a tokenizer.json"
        ) from None
    encoded = []
    for ids, places, chat in zip(out["input_ids"], out["offset_mapping"], chats, strict=True):
        begin, end = torch.tensor(places).view(-1, 2, 1).unbind(1)
        spans = torch.tensor(chat.answers).view(-1, 2)
        own = ((begin < spans[:, 1]) & (end > spans[:, 0])).any(1)
        encoded.append(Encoded(torch.tensor(ids, dtype=torch.long), own))
    return encoded
