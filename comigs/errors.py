"""Errors that comigs raises on purpose; the CLI prints them as one line."""


class ComigsError(Exception):
    """The run failed; the message is one clear line."""

    exit_code = 1


class BadInput(ComigsError):
    """The user's input is wrong; the message names the field, the value and the fix.

    Attributes:
        key: the setting it is about, e.g. `experts.rank`; "" for what is no setting.
    """

    exit_code = 2

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class TooShort(BadInput):
    """A client's text has no sequence, or no example, for one of its splits."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}; data.skip_small=true leaves such clients out")


class Stopped(ComigsError):
    """A tracker ended the run; what is done is saved."""


def one_line(error: BaseException) -> str:
    """`TypeName: message`, whatever line breaks the message holds."""
    return f"{type(error).__name__}: {flat(str(error), 2000)}"


def flat(text: str, most: int = 300) -> str:
    """Text of somebody else on one line: without control characters, and cut."""
    start = text[: 4 * most]
    words = "".join(c if c.isprintable() else " " for c in start).split()
    line = " ".join(words)
    return line if len(line) <= most and len(text) <= 4 * most else f"{line[: most - 3]}..."


class Refusal(ComigsError):
    """What a device was asked and does not do.

    Attributes:
        code: a short word for the kind.
        key: the setting or field it is about, a name of ours; "" for none.
    """

    def __init__(self, code: str, detail: str, key: str = "") -> None:
        super().__init__(f"{detail} ({code})")
        self.code, self.key = code, key

    @property
    def public(self) -> str:
        """What a server may know of it: nothing that is the device's own."""
        return f"refused ({self.code}{self.key and ': '}{self.key})"
