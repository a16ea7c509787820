"""Tokens to text, piece by piece: no half characters, and nothing of a text that ends it."""

from collections.abc import Sequence

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

CONTEXT = 8  # tokens before those that are decoded, since some tokenizers look at them
WINDOW = 64  # tokens that are decoded at most
HALF = "\ufffd"  # what a tokenizer writes for a part of a character


class Writer:
    """The text of one continuation.

    Attributes:
        stopped: whether one of the texts that end it has come.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        before: Sequence[int],
        stop: Sequence[str] = (),
        strip: bool = False,
    ) -> None:
        """Begin behind the tokens `before`.

        Args:
            stop: texts that end it.
            strip: leave out space at the start.
        """
        self._tokenizer, self._stop, self._strip = tokenizer, tuple(stop), strip
        self._ids = list(before[-CONTEXT:])
        self._known = self._decode()
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is sure now."""
        self._ids.append(token)
        text = self._decode()
        if text.endswith(HALF):
            return ""
        return self._found(text)

    def end(self) -> str:
        """The rest of the text."""
        rest = self._found(self._decode()) + self._held
        self._held = ""
        return rest

    def _found(self, text: str) -> str:
        new, self._known = text[len(self._known) :], text
        if len(self._ids) > WINDOW:
            self._ids = self._ids[-CONTEXT:]
            self._known = self._decode()
        if self._strip:
            new = new.lstrip()
            self._strip = not new
        return self._until_stop(self._held + new)

    def _until_stop(self, text: str) -> str:
        places = [place for each in self._stop if (place := text.find(each)) >= 0]
        if places:
            self.stopped, self._held = True, ""
            return text[: min(places)]
        held = max(
            (n for each in self._stop for n in range(1, len(each)) if text.endswith(each[:n])),
            default=0,
        )
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def _decode(self) -> str:
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True))
