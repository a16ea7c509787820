"""The bundled splits leak nothing, and a leak would be found."""

import json
import lzma
import random
from pathlib import Path

import pytest

from comigs.data import leakage
from comigs.data.leakage import check_federation, shared_windows, without_shared

BUNDLED = Path(leakage.__file__).parent / "bundled"
FEDERATIONS = ["multilingual", "topics", "domains"]


def numbers(seed: int, count: int = 60) -> str:
    """Lines of random digits: texts of different seeds share no window and no line."""
    draw = random.Random(seed)
    return "\n".join(str(draw.randrange(10**29, 10**30)) for _ in range(count))


def write_federation(folder: Path, clients: dict[str, tuple[str, str, str]]) -> Path:
    """A federation on disk: client -> (train, valid, test)."""
    folder.mkdir(exist_ok=True)
    info = {"clients": [{"name": name} for name in clients]}
    (folder / "federation.json").write_text(json.dumps(info))
    for name, texts in clients.items():
        (folder / name).mkdir(exist_ok=True)
        for split, text in zip(("train", "valid", "test"), texts, strict=True):
            (folder / name / f"{split}.txt.xz").write_bytes(lzma.compress(text.encode()))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FEDERATIONS)
def test_bundled_federation_is_clean(name: str) -> None:
    assert check_federation(BUNDLED / name) == []


@pytest.mark.parametrize("name", FEDERATIONS)
def test_bundled_federation_is_complete(name: str) -> None:
    info = json.loads((BUNDLED / name / "federation.json").read_text(encoding="utf-8"))
    assert info["name"] == name and info["title"]
    for client in info["clients"]:
        assert client["licence"] and client["attribution"] and client["source"]
        sizes = {s: len(leakage.read_split(BUNDLED / name, client["name"], s)) for s in
                 ("train", "valid", "test")}  # fmt: skip
        assert sizes["train"] > 250_000 and min(sizes.values()) > 50_000


def test_bundled_text_is_small() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*.xz")) < 3_000_000


def test_shared_windows_match_a_plain_search() -> None:
    heldout = numbers(0) + "\nÄhnlich 日本語 🙂 " * 5
    other = numbers(500) + heldout[300:380] + numbers(700) + heldout[-70:]
    windows = dict.fromkeys(heldout[i : i + 50] for i in range(len(heldout) - 49))
    expected = [window for window in windows if window in other]
    assert len(expected) > 40
    assert shared_windows(heldout, [numbers(900), other]) == expected


@pytest.mark.parametrize(("length", "found"), [(49, 0), (50, 1), (51, 2)])
def test_window_width_is_exact(length: int, found: int) -> None:
    heldout = numbers(0)
    piece = heldout[1001 : 1001 + length]
    assert len(shared_windows(heldout, [f"<<{piece}>>"])) == found


def test_short_texts_share_nothing() -> None:
    assert shared_windows("short", ["short"]) == []
    assert shared_windows(numbers(0), ["", "short"]) == []


def test_constructed_leaks_are_found(tmp_path: Path) -> None:
    valid = numbers(2000)
    clean = {
        "a": (numbers(1000), valid, numbers(3000)),
        "b": (numbers(4000), numbers(5000), numbers(6000)),
    }
    folder = write_federation(tmp_path / "f", clean)
    base = tmp_path / "base.txt"
    base.write_text(numbers(7000), encoding="utf-8")
    assert check_federation(folder, base) == []

    leaking = clean | {"b": (numbers(4000) + valid[500:550], numbers(5000), numbers(6000))}
    [leak] = check_federation(write_federation(folder, leaking), base)
    assert (leak.heldout, leak.found_in, leak.shared) == ("a/valid", "b/train", 1)
    assert leak.example == valid[500:550]

    base.write_text("before " + numbers(6000)[100:180] + " after", encoding="utf-8")
    [leak] = check_federation(write_federation(folder, clean), base)
    assert (leak.heldout, leak.found_in, leak.shared) == ("b/test", "base", 31)


def test_paragraph_and_window_between_validation_and_test_are_found(tmp_path: Path) -> None:
    valid = numbers(2000) + "\nshort one\n"
    test = numbers(3000) + "\nshort one\n" + valid[187:240]
    leaks = check_federation(write_federation(tmp_path, {"a": (numbers(1000), valid, test)}))
    assert {(leak.heldout, leak.found_in) for leak in leaks} == {("a/valid", "a/test")}
    assert [leak.example for leak in leaks if leak.shared == 1] == ["short one"]


def test_without_shared_leaves_no_window() -> None:
    heldout = numbers(0)
    parts = [*numbers(100).split("\n"), *numbers(0, 20).split("\n"), *numbers(200).split("\n")]
    kept = without_shared(parts, [heldout])
    assert shared_windows(heldout, ["\n".join(kept) + "\n"]) == []
    assert {*numbers(100).split("\n"), *numbers(200).split("\n")} <= set(kept)
    assert len(kept) < len(parts)
