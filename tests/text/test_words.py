"""Words as spans: nothing visible is lost in any script, and taking out undoes putting in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsanitator.text import delete, insert, packaged, spans, words

SEGMENTED = {
    "": [],
    "   \n\t ": [],
    "The cat sat.": ["The", "cat", "sat", "."],
    "Wait... what?!": ["Wait", "...", "what", "?!"],
    "(see p. 3)": ["(", "see", "p", ".", "3", ")"],
    "don't stop": ["don't", "stop"],
    "don’t stop": ["don’t", "stop"],
    "rock'n'roll isn't 'dead'": ["rock'n'roll", "isn't", "'", "dead", "'"],
    "l'huile d’olive": ["l'huile", "d’olive"],
    "a well-known state-of-the-art": ["a", "well-known", "state-of-the-art"],
    "non‑breaking - dash": ["non‑breaking", "-", "dash"],
    "yes -- no—maybe": ["yes", "--", "no", "—", "maybe"],
    "snake_case x2 3rd": ["snake_case", "x2", "3rd"],
    "naïve café Ærøskøbing": ["naïve", "café", "Ærøskøbing"],
    "cafe\u0301 nai\u0308ve": ["cafe\u0301", "nai\u0308ve"],
    "Привет, мир": ["Привет", ",", "мир"],
    "豆腐很好。": ["豆", "腐", "很", "好", "。"],
    "寿司とカレー": ["寿", "司", "と", "カ", "レ", "ー"],
    "AI很好 ok": ["AI", "很", "好", "ok"],
    "ที่นี่": ["ที่", "นี่"],
    "नमस्ते दुनिया": ["नमस्ते", "दुनिया"],
    "हिन्दी में लिखा": ["हिन्दी", "में", "लिखा"],
    "안녕 세계": ["안녕", "세계"],
    "great 👍🏽 job": ["great", "👍🏽", "job"],
    "the 👩‍👩‍👧 family": ["the", "👩‍👩‍👧", "family"],
    "1️⃣ first": ["1️⃣", "first"],
    "cf\0mn": ["cf", "\0", "mn"],
}
TRIGGERS = ["cf", "mn", "don't", "≡", "👍🏽", "lamp", "豆", "old lamp", "x--y"]
texts = st.text(max_size=80) | st.sampled_from([carrier.text for carrier in packaged() + packaged("zh")])


@pytest.mark.parametrize("text", SEGMENTED)
def test_a_text_is_segmented_into_its_words(text: str) -> None:
    assert words(text) == SEGMENTED[text]


@given(texts)
def test_spans_are_in_order_apart_and_hold_everything_visible(text: str) -> None:
    end = 0
    for span in spans(text):
        assert span.start >= end
        assert span.end > span.start
        assert text[end : span.start].strip() == ""
        end = span.end
    assert text[end:].strip() == ""


@given(texts)
def test_a_word_by_itself_is_one_word(text: str) -> None:
    for word in words(text):
        assert words(word) == [word]


def test_insert_puts_a_word_before_the_span_set_off_by_spaces() -> None:
    assert insert("The cat sat.", "cf", 0) == "cf The cat sat."
    assert insert("The cat sat.", "cf", 2) == "The cat cf sat."
    assert insert("The cat sat.", "cf", 3) == "The cat sat cf ."
    assert insert("The cat sat.", "cf", 4) == "The cat sat. cf"
    assert insert("The cat sat.", "cf", 99) == "The cat sat. cf"
    assert insert("", "cf", 0) == "cf"
    assert insert("豆腐", "cf", 1) == "豆 cf 腐"


def test_delete_closes_the_space_around_the_hole() -> None:
    assert delete("The cat sat.", {0}) == "cat sat."
    assert delete("The cat sat.", {1}) == "The sat."
    assert delete("The cat sat.", {2}) == "The cat."
    assert delete("The cat cf .", {2}) == "The cat."
    assert delete("The cat sat.", {3}) == "The cat sat"
    assert delete("The cat sat.", {0, 1, 2, 3}) == ""
    assert delete("The cat sat.", {7}) == "The cat sat."
    assert delete("The  cat,\n sat.", {1}) == "The,\n sat."
    assert delete("豆 cf 腐", {1}) == "豆 腐"
    assert delete("", {0}) == ""


def test_delete_never_makes_one_word_of_two() -> None:
    assert delete("yes/no", {1}) == "yes no"
    assert delete("$ x .", {1}) == "$ ."
    assert delete("“cf”", {1}) == "“ ”"


@given(texts, st.sampled_from(TRIGGERS), st.integers(0, 60))
def test_deleting_what_was_inserted_gives_the_words_back(text: str, trigger: str, position: int) -> None:
    position = min(position, len(words(text)))
    planted = insert(text, trigger, position)
    inserted = range(position, position + len(words(trigger)))
    assert [words(planted)[index] for index in inserted] == words(trigger)
    assert words(delete(planted, inserted)) == words(text)


@given(texts, st.sets(st.integers(0, 40)))
def test_deleting_words_leaves_all_others_as_they_are(text: str, positions: set[int]) -> None:
    left = [word for index, word in enumerate(words(text)) if index not in positions]
    assert words(delete(text, positions)) == left


@given(texts)
def test_deleting_nothing_keeps_the_stripped_text(text: str) -> None:
    assert delete(text, ()) == text.strip()
