"""Files of questions: what is one, and what an answer is worth."""

import json

import pytest

from comigs.errors import BadInput
from comigs.use.questions import read_questions, scores


def written(folder, *rows):
    path = folder / "questions.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_the_right_choice_is_named_or_counted(tmp_path):
    choices = ["Paris", "Rome"]
    path = written(
        tmp_path,
        {"question": "Capital of Italy?", "choices": choices, "answer": "Rome"},
        "",
        {"question": "Capital of France?", "choices": choices, "answer": 0},
    )
    assert [row["answer"] for row in read_questions(path)] == [1, 0]


def test_a_line_ends_where_json_lines_end(tmp_path):
    row = json.dumps({"question": "one\u2028two\u0085", "answer": "a"}, ensure_ascii=False)
    assert read_questions(written(tmp_path, row))[0]["question"] == "one\u2028two\u0085"


@pytest.mark.parametrize(
    ("said", "answers", "exact", "f1"),
    [
        ("The Eiffel Tower.", ["eiffel tower"], 1.0, 1.0),
        ("in Paris", ["Paris"], 0.0, 2 / 3),  # 1 of 2 words right, 1 of 1 found
        ("big red dog", ["a big dog", "cat"], 0.0, 0.8),  # 2 of 3, 2 of 2
        ("cat cat", ["cat"], 0.0, 2 / 3),  # a word counts as often as it is there
        ("nothing", ["else"], 0.0, 0.0),
        ("", ["else"], 0.0, 0.0),
        ("!", ["the"], 1.0, 1.0),  # nothing is left of both
    ],
)
def test_exact_match_and_f1_by_hand(said, answers, exact, f1):
    assert scores(said, answers) == pytest.approx({"exact_match": exact, "f1": f1})


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("{", r"line 2 is not JSON"),
        ([], r"line 2 has no text as its question"),
        ({"question": "q"}, r"line 2 has no text as its answer"),
        ({"question": "q", "answer": []}, r"line 2 has no text as its answer"),
        ({"question": "q", "choices": ["a"], "answer": 0}, r"line 2 has choices that are no list"),
        ({"question": "q", "choices": ["a", ""], "answer": 0}, r"line 2 has choices that are no"),
        ({"question": "q", "choices": ["a", "b"], "answer": 2}, r"line 2: answer is 2; give one"),
        ({"question": "q", "choices": ["a", "b"], "answer": "c"}, r"line 2: answer is 'c'; give"),
        ({"question": "q", "choices": ["a", "b"], "answer": True}, r"line 2: answer is True"),
        (
            {"question": "q", "choices": ["a", "b"], "answer": 1},
            r"mixes questions with and without",
        ),
    ],
)
def test_what_is_no_question_is_told_by_its_line(row, why, tmp_path):
    with pytest.raises(BadInput, match=why):
        read_questions(written(tmp_path, {"question": "q", "answer": "a"}, row))


def test_an_empty_file_holds_none(tmp_path):
    with pytest.raises(BadInput, match=r"questions.jsonl holds no questions"):
        read_questions(written(tmp_path, ""))
