"""Whatever a device answers, it is read as it should be, or refused by one error of ours."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comigs.messages.reply import Broken, read_hello, read_reported, read_rows

HELLO = {"client": 1, "name": "bo", "rounds": [1, 2], "shapes": {"a": [2, 3]}}
REPORT = {
    "round": 3, "loss": 1.0, "balance": 0.5, "valid_ppl": 9.0, "num-examples": 9, "tokens": 4,
    "steps": 2, "router_steps": 0, "router_tokens": 0, "train_seconds": 1.0, "eval_seconds": 0.0,
    "seconds": 1.0,
}  # fmt: skip
ROW = {
    "name": "bo", "test_tokens": 50, "pretrained": 9.0, "valid": 8.0, "before": 7.0, "after": 6.0,
    "trainable": 10,
}  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.sampled_from([10**400, -(10**400), 1e308, "[/x]", "\n", "\x1b[31m", "<b>", True]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)  # fmt: skip


def readers():
    return {
        "hello": (HELLO, lambda value: read_hello(json.dumps(value))),
        "report": (REPORT, read_reported),
        "row": (ROW, lambda value: read_rows(json.dumps([value]), {"bo"})),
    }


@pytest.mark.parametrize("kind", ["hello", "report", "row"])
def test_what_is_honest_is_read(kind):
    value, read = readers()[kind]
    assert read(value)


@pytest.mark.parametrize("kind", ["hello", "report", "row"])
@settings(max_examples=60)
@given(st.data())
def test_whatever_stands_in_a_field_nothing_but_our_error_comes(kind, data):
    value, read = readers()[kind]
    key = data.draw(st.sampled_from([*sorted(value), "client", "event", "bytes_up", "x"]))
    changed = value | {key: data.draw(JSON)}
    try:
        read(changed)
    except Broken as error:
        text = str(error)
        assert text.isprintable() and len(text) < 400


@settings(max_examples=40)
@given(st.text(max_size=20) | JSON | st.binary(max_size=9))
def test_whatever_is_no_message_is_our_error(value):
    for read in (read_hello, lambda text: read_rows(text, {"bo"})):
        with pytest.raises(Broken):
            read(value if isinstance(value, str | bytes) else json.dumps(value))


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows",
    [
        [], [ROW, ROW], [ROW | {"name": "ana"}], [ROW | {"after": 0.0}], [ROW | {"after": -1e308}],
        [ROW | {"after": float("nan")}], [ROW | {"after": "6"}], [ROW | {"after": True}],
        [ROW | {"client": 0}], [ROW | {"event": "end"}], [ROW | {"bytes_up": 1}], [ROW] * 100_001,
        {"rows": [ROW]}, ROW, [5], "x",
    ],
    ids=str,
)  # fmt: skip
def test_rows_that_are_not_a_client_s_own_are_refused(rows):
    with pytest.raises(Broken):
        read_rows(json.dumps(rows), {"bo"})


def test_a_metric_that_nobody_asked_for_is_refused():
    row = json.dumps([ROW | {"metric.token_accuracy": 0.5, "bits_per_byte": 1.5}])
    assert read_rows(row, {"bo"}, ["token_accuracy"])[0].metrics == {"token_accuracy": 0.5}
    with pytest.raises(Broken, match=r"has the metric 'token_accuracy', which log\.metrics does"):
        read_rows(row, {"bo"}, ["router_entropy"])
    with pytest.raises(Broken, match=r"bits_per_byte"):
        read_rows(json.dumps([ROW | {"bits_per_byte": -1.0}]), {"bo"})


def test_a_perplexity_that_diverged_is_told():
    assert read_rows(json.dumps([ROW | {"after": float("inf")}]), {"bo"})


def test_a_field_under_a_name_with_control_characters_is_told_in_one_line():
    with pytest.raises(Broken) as caught:
        read_hello(json.dumps(HELLO | {"shapes": {"\x1f\n" * 30: None}}))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
