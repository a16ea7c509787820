"""Questions of the user's own as tasks of lm-evaluation-harness: JSON lines with right answers.

A line with choices is a multiple-choice question, whose choices are compared by their likelihood:
    {"question": "...", "choices": ["...", "..."], "answer": 1}      (or the right choice itself)
Any other is answered in a line of the model's own:
    {"question": "...", "answer": "..."}                              (or a list of right answers)
"""

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from comigs.errors import BadInput
from comigs.store.plain import MIB, read_plain

Ask = Callable[[str], tuple[str, str]]
LIMIT = 256 * MIB  # most bytes of a file
LONGEST = 32  # tokens of a free answer
ARTICLES = re.compile(r"\b(a|an|the)\b")


def read_questions(path: Path) -> list[dict[str, Any]]:
    """The questions of a file; of those with choices, `answer` is the index of the right one.

    Raises:
        BadInput: naming the line that is none, or a file that mixes both kinds.
    """
    rows = []
    try:
        text = read_plain(path, path.parent, LIMIT).decode("utf-8-sig")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 (byte {error.start})") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            rows.append(_question(line, f"{path}, line {number}"))
    if not rows:
        raise BadInput(f"{path} holds no questions")
    if len({"choices" in row for row in rows}) > 1:
        raise BadInput(f"{path} mixes questions with and without choices; make two files of it")
    return rows


def _question(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadInput(f"{where} is not JSON ({error})") from None
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        raise BadInput(f"{where} has no text as its question")
    answer, choices = row.get("answer"), row.get("choices")
    if choices is None:
        answers = answer if isinstance(answer, list) else [answer]
        if not answers or not all(isinstance(one, str) and one.strip() for one in answers):
            raise BadInput(f"{where} has no text as its answer, nor a list of them")
        return {"question": row["question"], "answers": answers}
    if not isinstance(choices, list) or len(choices) < 2 or not all(map(_is_text, choices)):
        raise BadInput(f"{where} has choices that are no list of two or more texts")
    if answer in choices:
        answer = choices.index(answer)
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise BadInput(f"{where}: answer is {answer!r}; give one of the choices, or its index")
    return {"question": row["question"], "choices": choices, "answer": answer}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def as_it_is(question: str) -> tuple[str, str]:
    """The question itself, and a space before the answer."""
    return question, " "


def task_of(path: Path, ask: Ask = as_it_is) -> dict[str, Any]:
    """The configuration of the task that a file of questions is, under the file's name.

    Args:
        ask: what the model reads of a question, and what parts it from the answer.

    Raises:
        BadInput: as `read_questions`.
    """
    import datasets

    rows = read_questions(path)
    task = {
        "task": path.stem,
        "custom_dataset": lambda **kwargs: {"test": datasets.Dataset.from_list(rows)},
        "test_split": "test",
        "doc_to_text": lambda doc: ask(doc["question"])[0],
        "target_delimiter": ask("")[1],
    }
    if "choices" in rows[0]:
        measures = [{"metric": "acc"}, {"metric": "acc_norm"}]
        return task | {
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": measures,
        }
    return task | {
        "output_type": "generate_until",
        "doc_to_target": "{{answers[0]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": LONGEST, "do_sample": False},
        "process_results": lambda doc, results: scores(results[0], doc["answers"]),
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True}
            for name in ("exact_match", "f1")
        ],
    }


def scores(said: str, answers: Sequence[str]) -> dict[str, float]:
    """Exact match and token F1 of an answer against the best of the right ones, as SQuAD does.

    Case, punctuation and articles do not count (arXiv 1606.05250, section 6.1).
    """
    return {
        "exact_match": max(float(_plain(said) == _plain(answer)) for answer in answers),
        "f1": max(_f1(_plain(said).split(), _plain(answer).split()) for answer in answers),
    }


def _plain(text: str) -> str:
    bare = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", bare).split())


def _f1(said: list[str], right: list[str]) -> float:
    common = sum((Counter(said) & Counter(right)).values())
    if not common:
        return float(said == right)
    precision, recall = common / len(said), common / len(right)
    return 2 * precision * recall / (precision + recall)
