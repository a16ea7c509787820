"""Examples of text files, one after the other, each with its file and line."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comigs.errors import BadInput
from comigs.prepare.sources import Source

LONGEST = 2**28  # characters of one CSV field, or of one element of a JSON list
CHUNK = 2**20  # characters that are read at a time
BOM = "\ufeff".encode()


@dataclass(frozen=True)
class Row:
    """One example as its source has it.

    Attributes:
        place: file and line.
        values: by column.
        damage: why it cannot be read; "" if it can.
    """

    place: str
    values: dict[str, Any]
    damage: str = ""


def rows_of_json(source: Source) -> Iterator[Row]:
    """One object a line, where empty lines are none; or else the elements of one list."""
    for path in source.files:
        if _is_list(path):
            yield from _elements(source, path)
            continue
        with source.open(path, mode="rb") as file:
            for number, line in enumerate(file, 1):
                line = line.removeprefix(BOM) if number == 1 else line
                if line.strip():
                    place = f"{source.called(path)}, line {number}"
                    yield _object(place, line, source.stem(path))


def _is_list(path: Path) -> bool:
    """Whether a file begins as a JSON list does that is not the only one on its line."""
    with path.open("rb") as file:
        start = file.read(CHUNK).removeprefix(BOM).lstrip()
    first, _, rest = start.partition(b"\n")
    return start.startswith(b"[") and not (first.rstrip().endswith(b"]") and rest.strip())


def _elements(source: Source, path: Path) -> Iterator[Row]:
    """The objects of a list, one in memory at a time; after damage there is no going on."""
    name, stem, decoder = source.called(path), source.stem(path), json.JSONDecoder()
    with source.open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        head, _, text = file.read(CHUNK).partition("[")
        line, size = 1 + head.count("\n"), CHUNK
        while True:
            begin = len(text) - len(text.lstrip(" \t\n\r,"))
            line, text = line + text.count("\n", 0, begin), text[begin:]
            try:
                if text.startswith("]"):
                    return
                values, end = decoder.raw_decode(text)
            except RecursionError:
                raise BadInput(f"{name}, line {line}: its lists are too deep") from None
            except json.JSONDecodeError as error:
                more = file.read(size) if len(text) < LONGEST else ""
                if not more:
                    where = f"{name}, line {line + error.lineno - 1}"
                    raise BadInput(f"{where}: it is not JSON ({error.msg}); mend it") from None
                text, size = text + more, 2 * size
                continue
            except ValueError as error:  # a number too long
                raise BadInput(f"{name}, line {line}: it is not JSON ({error}); mend it") from None
            place = f"{name}, line {line}"
            if isinstance(values, dict):
                yield Row(place, {"file": stem} | values)
            else:
                yield Row(place, {}, "it is not a JSON object")
            line, text, size = line + text.count("\n", 0, end), text[end:], CHUNK


def _object(place: str, line: bytes, stem: str) -> Row:
    try:
        values = json.loads(line.strip())
    except UnicodeDecodeError:
        return Row(place, {}, "it is not UTF-8")
    except json.JSONDecodeError as error:
        return Row(place, {}, f"it is not JSON ({error.msg}, column {error.colno})")
    except (ValueError, RecursionError) as error:  # numbers too long, lists too deep
        return Row(place, {}, f"it is not JSON ({error})")
    if not isinstance(values, dict):
        return Row(place, {}, "it is not a JSON object")
    return Row(place, {"file": stem} | values)


def rows_of_csv(source: Source) -> Iterator[Row]:
    """One example a record, with a header in each file."""
    csv.field_size_limit(LONGEST)
    for path in source.files:
        name = source.called(path)
        how = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
        with source.open(path, **how) as file:
            reader = csv.reader(file, strict=True)
            header = _header(reader, name)
            while True:
                place = f"{name}, line {reader.line_num + 1}"
                try:
                    fields = next(reader)
                except StopIteration:
                    break
                except csv.Error as error:
                    yield Row(place, {}, f"it is not CSV ({error})")
                    continue
                if fields:
                    yield _record(place, header, fields, source.stem(path))


def _header(reader: Iterator[list[str]], name: str) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise BadInput(f"{name}, line 1: it is not CSV ({error})") from None
    if len(set(header)) != len(header) or not header:
        raise BadInput(f"{name}, line 1: expected the names of the columns, each once")
    return header


def _record(place: str, header: list[str], fields: list[str], stem: str) -> Row:
    if len(fields) != len(header):
        return Row(place, {}, f"it has {len(fields)} fields; the header has {len(header)}")
    try:
        "".join(fields).encode()
    except UnicodeEncodeError:
        return Row(place, {}, "it is not UTF-8")
    return Row(place, {"file": stem} | dict(zip(header, fields, strict=True)))


def rows_of_text(source: Source) -> Iterator[Row]:
    """Blocks between blank lines; the lines of a file that has no blank one between others."""
    for path in source.files:
        blocks = _has_blocks(path)
        with source.open(path, mode="rb") as file:
            for number, block in _blocks(file, blocks):
                place = f"{source.called(path)}, line {number}"
                try:
                    text = block.removeprefix(BOM).decode()
                except UnicodeDecodeError:
                    yield Row(place, {}, "it is not UTF-8")
                    continue
                yield Row(place, {"file": source.stem(path), "text": text})


def _has_blocks(path: Path) -> bool:
    with path.open("rb") as file:
        text = gap = False
        for line in file:
            filled = bool(line.strip())
            if filled and gap:
                return True
            gap = text and not filled
            text = text or filled
    return False


def _blocks(lines: Iterable[bytes], blocks: bool) -> Iterator[tuple[int, bytes]]:
    """(number of the first line, the whole) of each."""
    held: list[bytes] = []
    start = 1
    for number, line in enumerate(lines, 1):
        if held and (not blocks or not line.strip()):
            yield start, b"".join(held)
            held = []
        if line.strip():
            start = start if held else number
            held.append(line)
    if held:
        yield start, b"".join(held)
