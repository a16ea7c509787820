"""Natural ids as names of folders that every system can have."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

LONGEST = 60  # characters, which may be four bytes each
TAKEN = re.compile(  # names that mean something else, here or on Windows
    r"(manifest|clients)\.json|(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE
)


def legal_names(ids: Sequence[str]) -> list[str]:
    """A name for each id, all different; ids that would share one get a few digits of their own."""
    names = [_legal(each) for each in ids]
    often = Counter(name.casefold() for name in names)
    return [
        name if often[name.casefold()] == 1 else f"{name}-{_digits(each)}"
        for name, each in zip(names, ids, strict=True)
    ]


def _legal(text: str) -> str:
    """Letters, digits, dots, dashes and underscores; neither hidden nor ending with a dot."""
    name = (
        re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text))
        .lstrip(".")[:LONGEST]
        .rstrip(".")
    )
    return f"{name}_" if not name or TAKEN.fullmatch(name) else name


def _digits(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
