"""Every shape of an example, and the line or text that it becomes."""

import json

import pytest

from comigs.data.chats import Turn, Unfit, read_line
from comigs.data.template import plain_text
from comigs.errors import BadInput
from comigs.prepare.examples import Column
from comigs.prepare.shapes import find_shape

CHAT = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]


def text_of(row, **columns):
    """Plain text, or a chat in the plain template."""
    reader = find_shape(row, columns)
    text = reader.text(row)
    return plain_text(read_line(text)).text if text and reader.chats else text


def test_a_chat_is_written_with_the_roles_that_templates_know():
    turns = [{"from": "human", "value": " Größe?\r\n "}, {"from": "gpt", "value": "1 m"}]
    line = find_shape({"conversations": []}, {}).text({"conversations": turns})
    assert line.startswith('{"messages": [{"role": "user", "content": "Größe?"}, ')
    assert json.loads(line)["messages"][1] == {"role": "assistant", "content": "1 m"}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"text": " Line one.\r\nLine two. \n"}, "Line one.\nLine two."),
        ({"messages": CHAT}, "System: Be short.\nUser: Hi\nAssistant: Hello!"),
        ({"messages": '[{"role": "user", "content": "Hi"}]'}, "User: Hi"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}, {"text": "b"}]}]}, "User: ab"),
        ({"messages": {"role": ["user", "tool"], "content": ["Hi", "4"]}}, "User: Hi\nTool: 4"),
        ({"conversations": SHAREGPT}, "User: Hi\nAssistant: Hello!"),
        ({"prompt": "2 + 2?", "completion": " 4"}, "User: 2 + 2?\nAssistant: 4"),
        ({"prompt": CHAT[:2], "completion": CHAT[2:]}, text_of({"messages": CHAT})),
        (
            {"instruction": "Add.", "input": "2, 2", "output": "4"},
            "User: Add.\n2, 2\nAssistant: 4",
        ),
        ({"instruction": "Add.", "input": "", "output": "4"}, "User: Add.\nAssistant: 4"),
        ({"instruction": "Add.", "output": 4}, "User: Add.\nAssistant: 4"),
        ({"text": "plain", "messages": CHAT[1:2]}, "User: Hi"),
        ({"text": None}, ""),
        ({"messages": []}, ""),
        ({"messages": None}, ""),
    ],
)
def test_text_of_a_row(row, text):
    assert text_of(row) == text


def test_columns_are_named():
    row = {"question": "2 + 2?", "answer": "4", "text": "no"}
    assert text_of(row, prompt="question", completion="answer") == "User: 2 + 2?\nAssistant: 4"
    assert text_of(row, text="answer") == "4"
    assert text_of(row | {"prompt": "3?"}, completion="answer") == "User: 3?\nAssistant: 4"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, ["the columns are question, answer", "--columns text=COLUMN"]),
        ({"promt": "question"}, ["'promt'", "did you mean prompt?"]),
        ({"prompt": "qestion"}, ["--columns prompt=qestion", "did you mean question?"]),
        ({"prompt": "question"}, ["the columns are question, answer"]),
        ({"text": "question", "prompt": "answer"}, ["the columns are question, answer"]),
    ],
)
def test_what_cannot_be_recognised_is_told_with_its_columns(columns, words):
    with pytest.raises(BadInput) as error:
        find_shape({"question": 1, "answer": 2}, columns)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("first", "row", "why"),
    [
        ({"text": ""}, {"body": ""}, "there is no 'text'"),
        ({"text": ""}, {"text": {"a": 1}}, "not dict"),
        ({"text": ""}, {"text": "\ud800"}, "not valid Unicode"),
        ({"messages": []}, {"messages": "Hi"}, "a list of messages is expected"),
        ({"messages": []}, {"messages": 3}, "a list of messages is expected, not int"),
        ({"messages": []}, {"messages": ["Hi"]}, "with 'role' and 'content'"),
        ({"conversations": []}, {"conversations": [CHAT[0]]}, "with 'from' and 'value'"),
        ({"text": ""}, {"text": ["a", {"type": "image_url"}]}, "a part of a message is no text"),
    ],
)
def test_a_row_that_does_not_look_like_the_first_is_unfit(first, row, why):
    with pytest.raises(Unfit, match=why):
        find_shape(first, {}).text(row)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "no 'user'"),
        ("", "no 'user'"),
        (float("nan"), "no 'user'"),
        (["a"], "is a list; one"),
    ],
)
def test_nobody_is_called_nan_or_by_a_list(value, why):
    with pytest.raises(Unfit, match=why):
        Column("user").value({"user": value})
    assert Column("user").value({"user": 7}) == "7"


def test_what_is_missing_is_not_read_as_nan():
    nan = float("nan")
    row = {"instruction": "Count to two.", "input": nan, "output": "One, two."}
    chat = json.loads(find_shape(row, {}).text(row))["messages"]
    assert [turn["content"] for turn in chat] == ["Count to two.", "One, two."]
    assert find_shape({"text": ""}, {}).text({"text": nan}) == ""
    assert read_line('{"prompt": "a", "completion": NaN}') == (Turn("user", "a"),)
