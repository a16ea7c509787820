"""Texts that are too short are told at the start, of however many clients."""

import pytest

from comigs.config.load import load_config
from comigs.data import encoding
from comigs.data.corpus import client_names
from comigs.data.enough import check_texts
from comigs.data.roster import roster
from comigs.data.tokens import client_data
from comigs.errors import BadInput
from tests.fixtures import made_up_text

COUNT = 70


@pytest.fixture
def folder(tmp_path):
    client_names.cache_clear()
    for number in range(COUNT):
        (tmp_path / f"{number}.txt").write_text(made_up_text(number, 40))
    return tmp_path


def config_of(folder, *more):
    return load_config(None, [f"data={folder}", "data.seq_len=16", *more])


def test_texts_that_are_long_enough_pass(folder):
    check_texts(config_of(folder), range(COUNT))


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_one_short_text_of_many_is_named(folder, split):
    (folder / "69.txt").unlink()
    (folder / "69").mkdir()
    for each in ("train", "valid", "test"):
        text = "three words only\n" if each == split else made_up_text(1)
        (folder / "69" / f"{each}.txt").write_text(text)
    client_names.cache_clear()
    config = config_of(folder)
    with pytest.raises(BadInput, match=f"'69' has .* tokens in its {split} split") as at_start:
        check_texts(config, range(COUNT))
    assert str(at_start.value).endswith("; data.skip_small=true leaves such clients out")
    with pytest.raises(BadInput) as in_round:
        client_data(config, roster(config).index("69"))
    assert str(at_start.value) == str(in_round.value)


def test_a_text_of_one_sequence_is_enough_and_of_a_token_less_is_not(folder):
    config = config_of(folder, "data.valid_tokens=17")
    check_texts(config, range(COUNT))
    with pytest.raises(BadInput, match=r"data\.valid_tokens is 16 for client '0'.*= 17"):
        check_texts(config_of(folder, "data.valid_tokens=16"), range(COUNT))


def test_a_long_text_is_not_encoded_for_it(folder, monkeypatch):
    longest, real = [0], encoding.encode

    def watched(tokenizer, text):
        longest.append(len(text))
        return real(tokenizer, text)

    monkeypatch.setattr(encoding, "encode", watched)
    (folder / "0.txt").write_text(made_up_text(0, 3000))
    check_texts(config_of(folder), range(COUNT))
    assert 0 < max(longest) <= 16 * (16 + 1 + 8)
