"""How long a regular expression of a tokenizer can take, read off the pattern before it ever runs.

The engine in a tokenizer backtracks, and no timeout stops it. Its cost on a text of n characters is at most
choices * n ** (repeats + 1), if no repeat stands inside a repeat: the choices of a branch multiply, its unbounded
repeats add up. The patterns that tokenizers are published with are of this kind; what is not is refused.
"""

import re
from dataclasses import dataclass

from lmsanitator.encoder.limits import MAX_CHOICES, MAX_PATTERN, MAX_REPEATS
from lmsanitator.errors import CheckpointError

_GROUP = re.compile(r"\?(?:[im]*(?:-[im]+)?:|[=!>]|<[=!])")
_COUNT = re.compile(r"\{(\d*)(?:(,)(\d*))?\}")
_ESCAPE = re.compile(
    r"\\(?:[pP]\{\^?\w{1,40}\}|x\{[0-9A-Fa-f]{1,8}\}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[aAbBdDefGhHnrsStvwWzZ_]|\W)",
    re.DOTALL,
)
_COUNTS_OR_KINDS = re.compile(rf"{_COUNT.pattern}|\((?:{_GROUP.pattern})")
_NO_WORDS = re.compile(r"\\(?:p\{[ZPSCM][a-z]?\}|[aefnrstv]|\W)")
_CODES = re.compile(r"\\(?:x\{([0-9A-Fa-f]{1,8})\}|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4}))")
_RANGE = re.compile(r"(.)-(.)", re.DOTALL)
_EDGES = tuple("bBAzZG")
_MAX_DEPTH = 16


@dataclass(frozen=True)
class Cost:
    """What matching costs, and the fewest characters that a match has."""

    choices: int = 1
    repeats: int = 0
    shortest: int = 0

    def then(self, other: "Cost") -> "Cost":
        return Cost(self.choices * other.choices, self.repeats + other.repeats, self.shortest + other.shortest)

    def instead(self, other: "Cost") -> "Cost":
        return Cost(self.choices + other.choices, max(self.repeats, other.repeats), min(self.shortest, other.shortest))


def check_pattern(pattern: str) -> Cost:
    """The cost of a pattern.

    Raises:
        CheckpointError: it may take too long, or uses what is not understood here.
    """
    if len(pattern) > MAX_PATTERN:
        raise _refusal(pattern, f"it has {len(pattern):,} characters")
    reader = _Reader(pattern)
    cost = reader.alternatives()
    if reader.at < len(pattern):
        raise _refusal(pattern, "a parenthesis closes nothing")
    if cost.repeats > MAX_REPEATS or cost.choices > MAX_CHOICES:
        raise _refusal(pattern, f"{cost.repeats} repeats in a row and {cost.choices:,} choices")
    return cost


def may_match_words(pattern: str) -> bool:
    """Whether a pattern that passed `check_pattern` could match a letter or a digit; what is not certain could."""
    left = _CODES.sub(lambda found: chr(int(next(filter(None, found.groups())), 16) % 0x110000), pattern)
    left = _COUNTS_OR_KINDS.sub("(", _NO_WORDS.sub(" ", left))
    between = [chr(code) for first, last in _RANGE.findall(left) for code in range(ord(first), ord(last))]
    return "." in left or "[^" in left or any(letter.isalnum() or letter == "\\" for letter in (*left, *between))


def _refusal(pattern: str, why: str) -> CheckpointError:
    return CheckpointError(f"expected a tokenizer with patterns of bounded cost, got {pattern[:80]!r}: {why}")


class _Reader:
    """Reads a pattern from left to right, once."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.depth = 0

    def alternatives(self) -> Cost:
        cost = self.branch()
        while self.peek() == "|":
            self.at += 1
            cost = cost.instead(self.branch())
        return cost

    def branch(self) -> Cost:
        cost = Cost()
        while self.peek() not in ("", "|", ")"):
            cost = cost.then(self.piece())
        return cost

    def piece(self) -> Cost:
        letter = self.peek()
        if letter == "(":
            return self.repeated(self.group(), whole=True)
        if letter in "*+?":
            raise _refusal(self.pattern, "a repeat of nothing or of a repeat")
        if letter in "^$":
            self.at += 1
            return self.repeated(Cost(), whole=True)
        return self.repeated(self.atom(letter), whole=False)

    def atom(self, letter: str) -> Cost:
        """The cost of one character, escape or class; edges of words and texts have no width."""
        if letter == "[":
            self.character_class()
        elif letter == "\\":
            start = self.at + 1
            self.escape()
            if self.pattern[start : self.at] in _EDGES:
                return Cost()
        else:
            self.at += 1
        return Cost(shortest=1)

    def group(self) -> Cost:
        self.at += 1
        self.depth += 1
        looks = False
        if self.peek() == "?":
            kind = _GROUP.match(self.pattern, self.at)
            if kind is None:
                raise _refusal(self.pattern, "a group of an unknown kind")
            looks = kind[0][-1] in "=!"
            self.at = kind.end()
        if self.depth > _MAX_DEPTH:
            raise _refusal(self.pattern, "groups in groups without end")
        cost = self.alternatives()
        if self.peek() != ")":
            raise _refusal(self.pattern, "a parenthesis is not closed")
        self.at += 1
        self.depth -= 1
        return Cost(cost.choices, cost.repeats) if looks else cost

    def repeated(self, cost: Cost, *, whole: bool) -> Cost:
        """The cost of what was just read together with the quantifier behind it."""
        letter = self.peek()
        count = _COUNT.match(self.pattern, self.at) if letter == "{" else None
        if letter not in ("*", "+", "?") and count is None:
            return cost
        if count is not None:
            self.at = count.end()
            least, most = int(count[1] or 0), None if count[2] and not count[3] else int(count[3] or count[1] or 0)
        else:
            self.at += 1
            least, most = (1 if letter == "+" else 0), (1 if letter == "?" else None)
            if self.peek() in ("?", "+"):  # lazy or possessive: no more to try than without
                self.at += 1
        if self.peek() in ("*", "+", "?") or _COUNT.match(self.pattern, self.at):
            raise _refusal(self.pattern, "a repeat of a repeat")
        if whole and most != 1:
            raise _refusal(self.pattern, "a group is repeated")
        if most is None:
            return Cost(cost.choices, cost.repeats + 1, least * cost.shortest)
        if not least <= most <= MAX_CHOICES:
            raise _refusal(self.pattern, f"a repeat of {most:,}")
        return Cost(cost.choices + most - least, cost.repeats, least * cost.shortest)

    def escape(self) -> None:
        found = _ESCAPE.match(self.pattern, self.at)
        if found is None:
            raise _refusal(self.pattern, "an escape that is not known, or refers to a group")
        self.at = found.end()

    def character_class(self) -> None:
        """Step over `[...]`, in which further classes may stand."""
        depth, first = 0, False
        while self.peek():
            letter = self.peek()
            if letter == "\\":
                self.escape()
                first = False
                continue
            self.at += 1
            if letter == "[":
                depth += 1
                self.at += self.peek() == "^"
                first = True
                continue
            if letter == "]" and not first:
                depth -= 1
                if depth == 0:
                    return
            first = False
        raise _refusal(self.pattern, "a bracket is not closed")

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]
