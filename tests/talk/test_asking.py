"""What is read before an answer is what training read, and an answer ends as it did there."""

from types import SimpleNamespace

import pytest

from comigs.data.chats import Turn
from comigs.data.template import encode_chats
from comigs.errors import BadInput
from comigs.talk.asking import chat_ids, ends_of, text_ids
from tests.data.test_opening import BOS, tokenizer_of
from tests.data.test_template import CHAT, NESTED, STRICT, tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("template", [None, NESTED])
def test_a_chat_is_asked_as_it_was_trained_on(template):
    own = tokenizer(template)
    [(tokens, answers)] = encode_chats(own, [CHAT])
    first = len(tokens) - answers.tolist()[::-1].index(True)
    while answers[first - 1]:
        first -= 1
    assert chat_ids(own, CHAT[:-1]) == tuple(tokens[:first].tolist())


def test_plain_chats_and_texts_begin_with_the_opening_token():
    own = tokenizer_of("both")
    assert text_ids(own, "mira")[0] == chat_ids(own, CHAT[:2])[0] == BOS


def test_an_answer_ends_where_the_template_ends_it():
    own = tokenizer(CHATML)
    own.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    settings = SimpleNamespace(eos_token_id=[3, 4])
    end = own.convert_tokens_to_ids("<|im_end|>")
    assert ends_of(settings, own, chat=True) == {3, 4, own.eos_token_id, end}
    assert ends_of(settings, own, chat=False) == {3, 4}
    assert ends_of(SimpleNamespace(eos_token_id=None), tokenizer(), chat=False) == frozenset()


def test_a_template_that_refuses_is_one_line():
    with pytest.raises(BadInput, match=r"the chat cannot be asked: .*there is no user"):
        chat_ids(tokenizer(STRICT), (Turn("user", "mira"),))
