"""Chats as a user writes them: what is read, cut, dropped, mixed, and what is refused where."""

import json
import lzma
from dataclasses import replace

import pytest
import torch

from comigs.app.fingerprint import fingerprint
from comigs.backbone.base import load_tokenizer
from comigs.config.load import config_hash, load_config
from comigs.data.corpus import client_names
from comigs.data.enough import check_texts
from comigs.data.examples import left_out
from comigs.data.names import SPLITS
from comigs.data.tokens import client_data, counts, pooled_data, predictions
from comigs.data.windows import FILLING, read_marks
from comigs.errors import BadInput
from tests.data.chats import chat, made_up_chats, write_federation, write_split

TOKENIZER = load_tokenizer("comigs-tiny")
END = TOKENIZER.eos_token


def tokens_of(text):
    return TOKENIZER(text)["input_ids"]


def config_of(folder, *more):
    return load_config(None, [f"data={folder}", "data.seq_len=24", *more])


def examples_in(rows):
    """(tokens, those that are predicted) of every example, as texts, in the order of rows."""
    found = []
    for row in rows:
        entries = row[row != FILLING]
        for part in entries.tensor_split((entries < -(1 << 32)).nonzero().flatten()[1:]):
            ids = torch.where(part < 0, (-1 - part) % (1 << 32), part)
            found.append((TOKENIZER.decode(ids), TOKENIZER.decode(ids[part >= 0])))
    return found


def one_client(folder, train, valid=None, test=None):
    rows = [chat("a", "b")]
    for split, lines in zip(SPLITS, (train, valid or rows, test or rows), strict=True):
        write_split(folder, "ana", split, lines)
    return folder


def test_chats_as_a_user_writes_them(tmp_path):
    lines = [
        "\ufeff" + json.dumps(chat("mira", "tolu")),
        "",
        json.dumps({"prompt": "no?", "completion": " vai ", "more": 1}),
        {"messages": [*chat("rem", "ando")["messages"], *chat("zelt", "no")["messages"]]},
        {"prompt": chat("rem", "x")["messages"][:1], "completion": "ando"},
    ]
    data = client_data(config_of(one_client(tmp_path, lines), "data.seq_len=64"), 0)
    assert sorted(examples_in(data.train)) == sorted(
        [
            (f"User: mira\nAssistant: tolu{END}", f" tolu{END}"),
            (f"User: no?\nAssistant: vai{END}", f" vai{END}"),
            (
                f"User: rem\nAssistant: ando{END}\nUser: zelt\nAssistant: no{END}",
                f" ando{END} no{END}",
            ),
            (f"User: rem\nAssistant: ando{END}", f" ando{END}"),
        ]
    )
    learnt = sum(len(tokens_of(f" {a}{END}")) for a in ("tolu", "vai", "ando", "no", "ando"))
    assert predictions(data.train) == learnt


def test_all_of_a_chat_is_learnt_if_that_is_asked_for(tmp_path):
    one_client(tmp_path, [chat("mira", "tolu")])
    data = client_data(config_of(tmp_path, "data.loss=all"), 0)
    [(whole, learnt)] = examples_in(data.train)
    assert whole == f"User: mira\nAssistant: tolu{END}" and whole.endswith(learnt)
    assert predictions(data.train) == len(tokens_of(whole)) - 1


def test_what_is_too_long_is_cut_or_dropped_and_told(tmp_path):
    question, answer = "mira " * 5, "tolu " * 30
    whole = len(tokens_of(f"User: {question.strip()}\nAssistant: {answer.strip()}{END}"))
    lines = [chat("mira", "tolu"), chat(question, answer), chat("mira " * 40, "no")]
    lines += [{"messages": [{"role": "user", "content": "rem"}]}, {"messages": []}]
    longest = len(tokens_of(f"User: {('mira ' * 40).strip()}\nAssistant: no{END}"))
    one_client(tmp_path, lines)
    config = config_of(tmp_path, "data.seq_len=40")
    rows = client_data(config, 0).train
    long = max(examples_in(rows), key=lambda each: len(each[0]))[0]
    assert rows.shape[1] == 41 and len(tokens_of(long)) == 41 < whole
    total = counts(config, 0)
    assert vars(total) == {"read": 7, "cut": 1, "lost": 1, "silent": 2, "longest": longest}
    assert left_out(total, 40) == (
        "of 7 examples, 2 are longer than data.seq_len 40: 1 lose their end; 1 lose all of their "
        f"answers and are dropped; data.seq_len={longest - 1} holds all; 2 have no answer and "
        "are dropped"
    )
    enough = config_of(tmp_path, f"data.seq_len={longest - 1}")
    assert (counts(enough, 0).cut, counts(enough, 0).lost) == (0, 0)


def test_nothing_is_told_where_nothing_is_left_out(tmp_path):
    config = config_of(one_client(tmp_path, [chat("mira", "tolu")]))
    assert left_out(counts(config, 0), 24) == ""


def test_the_first_examples_are_kept_whole(tmp_path):
    lines = [chat("mira", word) for word in ("tolu", "sanke", "brifo", "zelt")]
    one_client(tmp_path, lines)
    sizes = [len(tokens_of(f"User: mira\nAssistant: {w}{END}")) for w in ("tolu", "sanke")]
    config = config_of(tmp_path, f"data.train_tokens={sum(sizes)}")
    assert len(examples_in(client_data(config, 0).train)) == 2
    less = config_of(tmp_path, f"data.train_tokens={sum(sizes) - 1}")
    assert len(examples_in(client_data(less, 0).train)) == 1
    with pytest.raises(BadInput, match=r"data\.train_tokens is 2; the first example of .*'ana'"):
        client_data(config_of(tmp_path, "data.train_tokens=2"), 0)


def test_a_mixture_has_as_many_examples_of_everybody(tmp_path):
    write_federation(tmp_path, counts=(24, 6, 9))
    config = config_of(tmp_path, "data.seq_len=64", "data.target=mixture")
    every = [client_data(config, i) for i in range(3)]
    assert torch.equal(every[0].valid, every[2].valid)
    own = [client_data(config_of(tmp_path, "data.seq_len=64"), i) for i in range(3)]
    firsts = []
    for number, client in enumerate(("ana", "bo", "cy")):  # 6 of the smallest, by 3 clients
        lines = made_up_chats(f"{number} valid", 6 + number)[:2]
        texts = [[m["content"] for m in line["messages"]] for line in lines]
        firsts += [f"User: {asked}\nAssistant: {said}{END}" for asked, said in texts]
        assert torch.equal(every[number].train, own[number].train), client
    assert sorted(text for text, _ in examples_in(every[0].valid)) == sorted(firsts)


def test_pooled_data_are_everybodys_rows(tmp_path):
    write_federation(tmp_path)
    config = config_of(tmp_path, "method=centralized")
    own = [client_data(config, i) for i in range(3)]
    pooled = pooled_data(config)
    assert torch.equal(pooled.train, torch.cat([data.train for data in own]))
    assert tuple(pooled.tests) == ("ana", "bo", "cy")
    assert torch.equal(pooled.tests["bo"], own[1].tests["bo"])


def test_text_beside_chats_trains_but_does_not_mix(tmp_path):
    write_federation(tmp_path)
    (tmp_path / "dan.txt").write_text("mira tolu sanke brifo zelt ando\n" * 90)
    client_names.cache_clear()
    assert [client_data(config_of(tmp_path), i).train.ndim for i in range(4)] == [2, 2, 2, 1]
    with pytest.raises(BadInput, match="some clients hold plain text, some chats"):
        client_data(config_of(tmp_path, "data.target=mixture"), 0)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "it is not JSON"),
        ("[1]", "it is not a JSON object"),
        ('{"text": "a"}', "it holds 'text'; expected 'messages', or 'prompt' and 'completion'"),
        ('{"messages": 3}', "a list of messages is expected, not int"),
        ('{"messages": {"role": "user", "content": "word"}}', "expected, not one message"),
        ('{"messages": {"role": ["user"], "content": []}}', "expected, not one message"),
        ('{"messages": [{"from": "human", "value": "a"}]}', "with 'role' and 'content'"),
        ('{"prompt": "a", "completion": {"b": 1}}', "a text is expected, not dict"),
        ('{"prompt": "\\ud800", "completion": "b"}', "not valid Unicode"),
    ],
)
def test_a_damaged_line_is_refused_with_file_and_line(tmp_path, line, why):
    one_client(tmp_path, [chat("a", "b"), "", line])
    with pytest.raises(BadInput) as error:
        client_data(config_of(tmp_path), 0)
    assert f"{tmp_path / 'ana' / 'train.jsonl'}, line 3: " in str(error.value)
    assert why in str(error.value) and str(error.value).endswith("; mend it, or take it out")


def test_files_are_as_careful_as_those_of_text(tmp_path):
    folder = one_client(tmp_path, [chat("mira", "tolu")])
    config = config_of(folder)
    before = client_data(config, 0).train
    path = folder / "ana" / "train.jsonl"
    assert fingerprint(config)["text"].keys() == {f"ana/{split}.jsonl" for split in SPLITS}
    packed = lzma.compress(path.read_bytes())
    path.unlink()
    path.with_name("Train.JSONL.XZ").write_bytes(packed)
    with pytest.raises(BadInput, match=r"ana/train\.jsonl is missing"):
        check_texts(replace(config, data=replace(config.data, seq_len=25)), [0])
    path.with_name("train.JSONL.XZ").write_bytes(packed)
    path.with_name("Train.JSONL.XZ").unlink()
    again = client_data(config_of(folder, "data.seq_len=25"), 0).train
    assert examples_in(again) == examples_in(before)
    path.with_name("train.txt").write_text("also text\n")
    with pytest.raises(BadInput, match="are the same client's text, in two places"):
        client_data(config_of(folder, "data.seq_len=26"), 0)


def test_a_split_without_an_answer_is_refused(tmp_path):
    one_client(tmp_path, [chat("mira", "tolu")], valid=[{"prompt": "rem", "completion": ""}])
    match = r"client 'ana' has nothing to learn from in its valid split: of 1 examples, 1 have no"
    for look in (lambda c: client_data(c, 0), lambda c: check_texts(c, [0])):
        with pytest.raises(BadInput, match=match):
            look(config_of(tmp_path))


def test_the_default_leaves_the_names_of_runs_alone():
    assert config_hash(load_config(None, ["data.loss=answers"])) == config_hash(load_config(None))
    assert config_hash(load_config(None, ["data.loss=all"])) != config_hash(load_config(None))


def test_rows_are_short_of_no_position(tmp_path):
    write_federation(tmp_path)
    rows = client_data(config_of(tmp_path), 0).train
    assert read_marks(rows).positions.max() < 24
    full = (rows != FILLING).float().mean()
    assert full > 0.8
