"""What can be taken out of an input: the words of a text, of both texts of a pair, or of a sentence that is given as
words."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

from lmsanitator.text import Text, delete, sides, spans


class Parts(ABC):
    """An input in words. What stands behind the window moves up when words are taken out, so twice the window is looked
    at."""

    words: list[str]
    """Those that are looked at."""
    read: frozenset[int]
    """Those of them that are in the window as things are."""

    @abstractmethod
    def without(self, gone: Collection[int]) -> Text:
        """What the monitor is asked about: the words that are looked at, less those `gone`."""

    @abstractmethod
    def leaves_words(self, gone: Collection[int]) -> bool:
        """Whether words are left, in each text that had any."""

    @abstractmethod
    def rest(self, gone: Collection[int]) -> Text:
        """The whole input, less the words `gone`."""


class TextParts(Parts):
    """The words of a text, or of both texts of a pair, as `spans` finds them."""

    def __init__(self, text: Text, window: int) -> None:
        self.text = text
        self._looked_at: list[str] = []
        self._places: list[tuple[int, int]] = []
        self.words: list[str] = []
        for side, whole in enumerate(sides(text)):
            found = spans(whole)[: 2 * window]
            self._looked_at.append(whole[: found[-1].end] if found else "")
            self._places += [(side, number) for number in range(len(found))]
            self.words += [whole[start:end] for start, end in found]
        self.read = frozenset(at for at, (_, number) in enumerate(self._places) if number < window)

    def without(self, gone: Collection[int]) -> Text:
        return self._delete(self._looked_at, gone)

    def leaves_words(self, gone: Collection[int]) -> bool:
        kept = {side for at, (side, _) in enumerate(self._places) if at not in gone}
        return bool(kept) and kept == {side for side, _ in self._places}

    def rest(self, gone: Collection[int]) -> Text:
        return self._delete(sides(self.text), gone)

    def _delete(self, texts: Sequence[str], gone: Collection[int]) -> Text:
        left = [
            delete(text, {self._places[at][1] for at in gone if self._places[at][0] == side})
            for side, text in enumerate(texts)
        ]
        return left[0] if len(left) == 1 else (left[0], left[1])


class WordParts(Parts):
    """The words of a sentence as they are given: each goes or stays whole, whatever is in it."""

    def __init__(self, given: Sequence[str], window: int) -> None:
        self.given = given
        self.words = list(given[: 2 * window])
        self.read = frozenset(range(min(window, len(self.words))))

    def without(self, gone: Collection[int]) -> str:
        return " ".join(word for at, word in enumerate(self.words) if at not in gone)

    def leaves_words(self, gone: Collection[int]) -> bool:
        return any(spans(word) for at, word in enumerate(self.words) if at not in gone)

    def rest(self, gone: Collection[int]) -> str:
        return " ".join(word for at, word in enumerate(self.given) if at not in gone)
