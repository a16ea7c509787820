"""Text piece by piece: what is streamed is the text, without halves and ends."""

import pytest

from comigs.backbone.base import load_tokenizer
from comigs.talk.writing import Writer

TEXT = "Grüße aus Köln, 10 € für den Käse! 日本 \U0001f600 und so weiter: " + "la le lu " * 40


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("comigs-tiny")


def pieces(tokenizer, text, before="Ja: ", **how):
    writer = Writer(tokenizer, tokenizer(before)["input_ids"], **how)
    said = []
    for token in tokenizer(text)["input_ids"]:
        said.append(writer.add(token))
        if writer.stopped:
            break
    return [*said, writer.end()], writer.stopped


def test_pieces_are_the_text_without_half_characters(tokenizer):
    said, stopped = pieces(tokenizer, TEXT)
    assert "".join(said) == TEXT and not stopped
    assert not any("\ufffd" in piece for piece in said)
    assert sum(map(bool, said)) > 50


@pytest.mark.parametrize(
    ("stop", "want"),
    [
        (["für"], "Grüße aus Köln, 10 € "),
        (["weiter", "Käse", "den Kä"], "Grüße aus Köln, 10 € für "),
        (["la le lo"], TEXT),
        (["Gr"], ""),
    ],
)
def test_nothing_of_a_text_that_ends_it_is_said(tokenizer, stop, want):
    said, stopped = pieces(tokenizer, TEXT, stop=stop)
    assert "".join(said) == want
    assert stopped == (want != TEXT)


def test_space_at_the_start_of_an_answer_is_left_out(tokenizer):
    said, _ = pieces(tokenizer, " \n 4 or 5", strip=True)
    assert "".join(said) == "4 or 5"


def test_what_stands_before_a_stop_is_said_at_the_end_too():
    class Half:
        def decode(self, ids, **_):
            return "la le STOP\ufffd" if ids else ""

    writer = Writer(Half(), (), ["STOP"])
    assert (writer.add(1), writer.end(), writer.stopped) == ("", "la le ", True)
