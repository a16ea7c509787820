"""What is read of a chat and what of it is learnt, with each kind of template."""

import pytest
from transformers import AutoTokenizer

from comigs.backbone.names import BUNDLED
from comigs.data.chats import Turn, Unfit
from comigs.data.template import encode_chats, plain_text, prompt_for
from tests.data.test_opening import BOS, tokenizer_of

CHAT = (
    Turn("system", "Be short."),
    Turn("user", "Hi"),
    Turn("assistant", "Hello!\nYou?"),
    Turn("user", "Fine"),
    Turn("assistant", "Good."),
)
TURN = "{{ '<|' + m.role + '|>' }}\n{{ m.content }}{{ eos_token }}\n"
ASKS = "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
NESTED = "{% for m in messages %}" + TURN + "{% endfor %}" + ASKS
TELLS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\n"
    "{%- generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}\n"
    "{% else %}" + TURN + "{% endif %}{% endfor %}" + ASKS
)
# As reasoning models do: only the last answer is behind its thoughts.
FORGETS = (
    "{% for m in messages %}{% if loop.last and m.role == 'assistant' %}<|assistant|>\n"
    "<think></think>{{ m.content }}{{ eos_token }}\n"
    "{% else %}" + TURN + "{% endif %}{% endfor %}" + ASKS
)
HIDES = NESTED.replace(ASKS, ASKS.replace("<|assistant|>", "<|assistant|><think>"))
STRICT = "{{ raise_exception('there is no ' + messages[0].role) }}"


def tokenizer(template=None):
    made = AutoTokenizer.from_pretrained(BUNDLED / "comigs-tiny")
    made.chat_template = template
    return made


def read(own, chat, **options):
    """The text of a chat, and those of the runs of tokens that are learnt."""
    [(tokens, answers)] = encode_chats(own, [chat], **options)
    runs, before = [], False
    for token, learnt in zip(tokens.tolist(), answers.tolist(), strict=True):
        if learnt:
            runs = runs if before else [*runs, []]
            runs[-1].append(token)
        before = learnt
    return own.decode(tokens), [own.decode(run) for run in runs]


def test_the_plain_template_with_the_end_of_an_answer():
    own = tokenizer()
    end = own.eos_token
    whole, learnt = read(own, CHAT)
    assert whole == (
        f"System: Be short.\nUser: Hi\nAssistant: Hello!\nYou?{end}\nUser: Fine\n"
        f"Assistant: Good.{end}"
    )
    assert learnt == [f" Hello!\nYou?{end}", f" Good.{end}"]
    assert plain_text(CHAT[1:3]).text == "User: Hi\nAssistant: Hello!\nYou?"


def test_a_tokenizer_that_opens_texts_opens_chats():
    [(tokens, answers)] = encode_chats(tokenizer_of("both"), [CHAT[1:3]])
    assert tokens[0] == BOS and not answers[0] and answers[-1]


@pytest.mark.parametrize("template", [NESTED, TELLS])
def test_the_tokenizers_own_template(template):
    own = tokenizer(template)
    end = own.eos_token
    whole, learnt = read(own, CHAT)
    assert whole == own.apply_chat_template(
        [{"role": turn.role, "content": turn.content} for turn in CHAT], tokenize=False
    )
    assert learnt == [f"Hello!\nYou?{end}", f"Good.{end}"]
    assert read(own, CHAT[2:3])[1] == [f"Hello!\nYou?{end}"]


def test_what_a_template_writes_before_an_opening_answer_is_not_learnt():
    own = tokenizer(
        "{% if messages[0].role != 'system' %}<|system|>\nYou help.\n{% endif %}" + NESTED
    )
    for content in ("Hello!", "a", "about", "b"):
        whole, learnt = read(own, (Turn("assistant", content), CHAT[1]))
        assert whole.startswith(f"<|system|>\nYou help.\n<|assistant|>\n{content}")
        assert learnt == [f"{content}{own.eos_token}"]


@pytest.mark.parametrize("template", [None, NESTED])
def test_a_question_is_asked_as_it_was_learnt(template):
    own = tokenizer(template)
    prompt, between = prompt_for(own, "Hi")
    whole, [answer] = read(own, CHAT[1:3])
    assert whole.startswith(f"{prompt}{between}Hello!")
    assert answer.startswith(f"{between}Hello!")


def test_an_answer_without_a_question_is_all_learnt():
    own = tokenizer()
    assert read(own, CHAT[4:])[1] == [f" Good.{own.eos_token}"]


@pytest.mark.parametrize("template", [None, NESTED, TELLS, FORGETS])
def test_all_of_it_can_be_learnt(template):
    own = tokenizer(template)
    whole, learnt = read(own, CHAT, everything=True)
    assert learnt == [whole]


def test_where_a_template_forgets_each_answer_is_an_example():
    own = tokenizer(FORGETS)
    end = own.eos_token
    first, last = encode_chats(own, [CHAT])
    assert own.decode(first.tokens).endswith(
        f"Hi{end}\n<|assistant|>\n<think></think>Hello!\nYou?{end}\n"
    )
    assert own.decode(first.tokens[first.answers]) == f"<think></think>Hello!\nYou?{end}"
    assert f"<|assistant|>\nHello!\nYou?{end}" in own.decode(last.tokens)
    assert own.decode(last.tokens[last.answers]) == f"<think></think>Good.{end}"


def test_what_a_template_hides_or_refuses_is_told_with_its_place():
    with pytest.raises(Unfit, match=r"otherwise than it then writes it.*data\.loss=all") as error:
        encode_chats(tokenizer(HIDES), [CHAT[:2], CHAT[1:3]])
    assert error.value.place == 1
    with pytest.raises(Unfit, match=r"refuses it .*there is no user"):
        encode_chats(tokenizer(STRICT), [CHAT[1:3]])
