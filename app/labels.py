"""What an operator calls a class → its index."""

from collections.abc import Sequence

__all__ = ["LabelError", "Labels"]


class LabelError(Exception):
    """Raised for labels that the classifier does not know or that do not match the images."""

    def __init__(self, detail: str, part: str | None = None) -> None:
        super().__init__(detail)
        self.part = part


class Labels:
    """The classes of one classifier: names where it has them, and indices 0..count − 1 always."""

    def __init__(self, names: Sequence[str] | None, count: int) -> None:
        self.count = count
        self._names = {name: index for index, name in enumerate(names or ())}

    def index(self, text: str, part: str | None = None) -> int:
        """The index of the class called `text`. A name wins over an index: with the labels "1", "2",
        "3" the text "1" is the first. Raises `LabelError`, naming `part`."""
        if text in self._names:
            return self._names[text]
        if text.isascii() and text.isdigit() and len(text) <= 9 and int(text) < self.count:
            return int(text)
        known = "a class name or " if self._names else ""
        raise LabelError(f"{text[:80]!r} is not {known}an index from 0 to {self.count - 1}", part)
