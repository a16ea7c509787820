"""What `bundle_data.py` cuts: the clients of each federation and the base model's sources."""

import re
from dataclasses import dataclass

LIBREOFFICE = ("MPL-2.0", "LibreOffice help, (c) LibreOffice contributors, help.libreoffice.org")
WIKIPEDIA = ("CC BY-SA 4.0", "English Wikipedia contributors, en.wikipedia.org (shortened)")
AUSTEN = ("public domain", "Jane Austen's novels")
BIBLE = ("public domain", "World English Bible, worldenglish.bible")
PYTHON = ("PSF-2.0", "Python standard library, (c) 2001-2023 Python Software Foundation")
LICENCES = ("CC0-1.0", "SPDX licence list, spdx.org/licenses (the collection)")


@dataclass(frozen=True)
class Client:
    """One client of a bundled federation.

    Attributes:
        source: file below the source folder.
        credit: licence and attribution.
        begin: where in the source the training pool begins, as a fraction of its paragraphs.
        heldout_at: where the pool ends and validation and then test begin, as such a fraction.
        train_bytes: upper bound of the training split, in bytes of UTF-8.
        heldout_bytes: the same for the validation and for the test split.
        kind: `text` (a paragraph is a line) or `code` (a block between blank lines).
        anchors: openings of the paragraphs where validation begins, where test begins and where
            test ends; they replace the fractions where documents must stay whole.
    """

    name: str
    source: str
    credit: tuple[str, str]
    begin: float = 0.0
    heldout_at: float = 0.5
    train_bytes: int = 600_000
    heldout_bytes: int = 76_000
    kind: str = "text"
    anchors: tuple[str, str, str] | None = None

    def description(self) -> dict[str, str]:
        """The client's entry in `federation.json`."""
        licence, attribution = self.credit
        return {
            "name": self.name,
            "source": self.source,
            "kind": self.kind,
            "licence": licence,
            "attribution": attribution,
        }


def _language(code: str) -> Client:
    return Client(code, f"multilingual/{code}.txt", LIBREOFFICE, begin=0.55, heldout_at=0.9)


def _topic(name: str, heldout_at: float) -> Client:
    source = f"topics/{name}.txt"
    return Client(name, source, WIKIPEDIA, 0.0, heldout_at, 500_000, 60_000)


FEDERATIONS: dict[str, tuple[str, list[Client]]] = {
    "multilingual": (
        "LibreOffice help pages in four languages",
        [_language(code) for code in ("de", "fr", "it", "nl")],
    ),
    "topics": (
        "English Wikipedia articles on four topics",
        [
            _topic("biology_and_health_sciences", 0.8),
            _topic("geography", 0.77),
            _topic("people", 0.8),
            _topic("physical_sciences", 0.73),
        ],
    ),
    "domains": (
        "English text of five kinds",
        [
            Client("encyclopedia_en", "domains/encyclopedia_en.txt", WIKIPEDIA),
            Client("python_code", "domains/python_code.txt", PYTHON, kind="code"),
            Client("fiction_austen", "domains/fiction_austen.txt", AUSTEN),
            Client("scripture_web", "domains/scripture_web.txt", BIBLE),
            Client(
                "legal_licences",
                "domains/legal_licences.txt",
                LICENCES,
                anchors=(
                    "All of the documentation and software included in this software distributio",
                    "The Open Data Commons Attribution License is a license agreement inten",
                    "Testing is essential for proper development and maintenance of standar",
                ),
            ),
        ],
    ),
}

# file, kind, and at most how many bytes of it the base model is trained on
BASE: list[tuple[str, str, int]] = [
    ("pretrain/encyclopedia_en_rest.txt", "text", 3_000_000),
    ("domains/encyclopedia_en.txt", "text", 3_000_000),
    ("multilingual/en.txt", "text", 2_200_000),
    ("domains/fiction_austen.txt", "text", 1_500_000),
    ("domains/scripture_web.txt", "text", 1_300_000),
    ("domains/python_code.txt", "code", 1_000_000),
    ("domains/legal_licences.txt", "text", 400_000),
]
# file, where the held-out English begins as a fraction of its paragraphs, and its bytes
BASE_HELDOUT = ("pretrain/encyclopedia_en_rest.txt", 0.9, 150_000)
FOREIGN = re.compile(r"\b(der|die|und|das|nicht|les|des|une|est|dans|della|che|sono|los|para)\b")


def is_foreign(part: str, kind: str) -> bool:
    """Whether a paragraph looks German, French, Italian or Spanish (for the licence texts)."""
    return kind == "text" and len(FOREIGN.findall(part)) > max(2, len(part.split()) // 12)
