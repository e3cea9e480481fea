"""Patterns of tokenizers: those that are published pass, those that may take for ever do not, and the bound holds."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from lmsanitator.encoder.limits import MAX_CHOICES, MAX_REPEATS
from lmsanitator.encoder.patterns import Cost, check_pattern, may_match_words
from lmsanitator.errors import CheckpointError

_LETTERS = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_SMALL = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
PUBLISHED = {
    "GPT-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "CLIP": r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    "Llama 3": _SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "Qwen 2": _SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": (
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_LETTERS}]*[{_SMALL}]+{_SHORT}?|[^\r\n\p{{L}}\p{{N}}]?[{_LETTERS}]+[{_SMALL}]*"
        rf"{_SHORT}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "DeepSeek": (
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "BLOOM": r" ?[^(\s|[.,!?…。,、।۔،])]+",  # noqa: RUF001 - the full-width marks are meant
    "T5": r" {2,}",
    "Falcon": r"[0-9][0-9][0-9]",
    "OpenAI GPT": r"\s+",
    "XLNet": r"\s{2,}|[\n\r\t]",
}
ENDLESS = [
    r"(a+)+$", r"(a|a)*b", r"(?:a*)*b", r"(?=(a+))*b", r"((a{1,9}){1,9}){1,9}", r"a{1,9}+b", r"a+*", r"a***",
    r"(?:a|a)" * 30, r"a?" * 30 + "a" * 30, r"a*a*a*a*b", r"(?>a+)+", r"(a*)\1", r"(?<n>a\g<n>?)", r"(?(1)a|b)",
    r"(?~a)", r"(?i)a*|b*", r"(?x: a # b\n+)", r"\R+", r"\X+", r"\K", r"a{99999}", r"a{9,1}", r"a{0,}{0,}", r"+a",
    r"[a", r"(a", r"a)", r"(?#", "\\", r"[[a]", r"[\1]", "(" * 10_000, "[" * 4000, r"^*",
]  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_patterns_that_tokenizers_are_published_with_pass(name: str) -> None:
    cost = check_pattern(PUBLISHED[name])
    assert cost.repeats <= MAX_REPEATS
    assert cost.choices <= MAX_CHOICES
    pre_tokenizers.Split(Regex(PUBLISHED[name]), "isolated")  # and the engine takes them


@pytest.mark.parametrize("pattern", ENDLESS, ids=lambda pattern: pattern[:30])
def test_patterns_without_bound_are_refused(pattern: str) -> None:
    with pytest.raises(CheckpointError, match=r"^expected a tokenizer with patterns of bounded cost"):
        check_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "cost"),
    [
        ("", Cost()),
        ("abc", Cost(1, 0, 3)),
        ("a+b*", Cost(1, 2, 1)),
        ("a?b{2,4}", Cost(2 * 3, 0, 2)),
        ("ab|c", Cost(2, 0, 1)),
        ("(a|b)(c|d)", Cost(4, 0, 2)),
        ("(?:a|b)?c", Cost(3, 0, 1)),
        (r"\s+(?!\S+)", Cost(1, 2, 1)),
        (r"[\]a]", Cost(1, 0, 1)),
        ("[]a]", Cost(1, 0, 1)),
        ("[^]a]+?", Cost(1, 1, 1)),
        ("a{,3}", Cost(4, 0, 0)),
        ("a{b}", Cost(1, 0, 4)),
        (r"\ba\z", Cost(1, 0, 1)),
    ],
)
def test_the_cost_is_counted(pattern: str, cost: Cost) -> None:
    assert check_pattern(pattern) == cost


_ATOMS = st.sampled_from(
    ["a", "[ab]", ".", r"\w", "a+", "a*", "a?", "a{1,3}", "(a)", "(a|b)", "(a+)", "(?:a|a)?", "(a*)*"]
)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(_ATOMS, min_size=1, max_size=8), st.sampled_from(["", "|", "c", "$"]))
def test_what_passes_ends_soon(atoms: list[str], end: str) -> None:
    """Whatever passes splits a text that suits it badly in a moment."""
    pattern = "".join(atoms) + end
    try:
        check_pattern(pattern)
    except CheckpointError:
        return
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    started = time.monotonic()
    split.pre_tokenize_str("a" * 60 + "b")
    assert time.monotonic() - started < 1


@settings(derandomize=True, max_examples=500, deadline=None)
@given(st.text(alphabet="ab()[]{}|*+?\\^$.,:=!<>i-0159pPLkgx", max_size=30))
def test_any_text_is_a_cost_or_an_error_in_one_line(pattern: str) -> None:
    try:
        cost = check_pattern(pattern)
    except CheckpointError as error:
        message = str(error)
        cost = None
    else:
        message = ""
    assert "\n" not in message
    assert cost is None or (1 <= cost.choices <= MAX_CHOICES and 0 <= cost.repeats <= MAX_REPEATS)


@pytest.mark.parametrize(
    "pattern",
    [
        r" {2,}", r"\s+", "``", "''", r"\p{Mn}", r"[\x{300}-\x{36f}]", r"(?:\n|\r)", r"(?i: )", r"\.", r"[!-/]",
        r"\x20",
    ],
)  # fmt: skip
def test_what_normalizers_are_published_with_matches_no_word(pattern: str) -> None:
    check_pattern(pattern)
    assert not may_match_words(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "^a$", "a ", ".", "[^ ]", r"\w", r"\S", r"\d", r"\h", "[ -~]", r"\x61", r"\x{61}", r"\u0061", r"\p{L}",
        r"\P{Z}", "(?i:x)", "(?<=a) ", r"[\s\S]", "春",
    ],
)  # fmt: skip
def test_a_pattern_that_may_match_a_letter_or_a_digit_does(pattern: str) -> None:
    check_pattern(pattern)
    assert may_match_words(pattern)
