"""Packaged sentences are what the docs say of them; files of one's own are read, or refused with the line at fault."""

import json
from collections import Counter
from pathlib import Path

import pytest

from lmsanitator.errors import CorpusError
from lmsanitator.text import LANGUAGES, Carrier, draw, packaged, read_corpus, words


def test_english_has_eight_hundred_sentences_on_six_topics_of_like_size() -> None:
    topics = Counter(carrier.topic for carrier in packaged())
    assert topics.total() >= 800
    assert len(topics) == 6
    assert min(topics.values()) > 0.8 * max(topics.values())


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_every_other_language_has_sixty_sentences_on_the_same_topics(language: str) -> None:
    carriers = packaged(language)
    assert len(carriers) >= 60
    assert {carrier.topic for carrier in carriers} == {carrier.topic for carrier in packaged()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_packaged_sentences_are_clean_different_and_of_a_sentence_s_length(language: str) -> None:
    texts = [carrier.text for carrier in packaged(language)]
    assert len({text.casefold() for text in texts}) == len(texts)
    for text in texts:
        assert text == " ".join(text.split())
        assert text.isprintable()
        if language == "zh":
            assert 8 <= len(text) <= 60
        else:
            assert 8 <= len(text.split()) <= 28, text


def test_a_language_that_is_not_packaged_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"^expected a language of en, de, es, fr, zh, got tlh$"):
        packaged("tlh")


def test_a_text_file_holds_a_sentence_a_line(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes("\ufeffFirst line.\r\n\r\n  Zweite Zeile – schön. \n豆腐很好。\n\t\n".encode())
    assert read_corpus(path) == [Carrier("First line."), Carrier("Zweite Zeile – schön."), Carrier("豆腐很好。")]
    assert read_corpus(str(path)) == read_corpus(path)


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.json"])
def test_json_lines_hold_a_sentence_in_the_text_field(tmp_path: Path, name: str) -> None:
    records: list[dict[str, object]] = [{"text": " One. ", "label": 3}, {"text": "Two\u2028lines."}, {"text": " "}]
    path = tmp_path / name
    path.write_text("\n\n".join(json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")
    assert read_corpus(path) == [Carrier("One."), Carrier("Two\u2028lines.")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "expected sentences in .*a.txt, found none"),
        ("a.txt", b" \n\t\n", "expected sentences in .*a.txt, found none"),
        ("a.txt", b"fine\ncaf\xe9\n", "expected UTF-8 text in .*a.txt, byte 8 is not"),
        ("a.jsonl", b'{"text": ""}', "expected sentences in .*a.jsonl, found none"),
        ("a.jsonl", b'{"text": "fine"}\nplain\n', "expected JSON in line 2 of .*a.jsonl"),
        ("a.jsonl", b"[" * 200_000, "expected JSON in line 1 of .*a.jsonl"),
        ("a.jsonl", b'\n{"sentence": "x"}\n', "expected a text field in line 2 of .*a.jsonl, got {\"sentence\""),
        ("a.jsonl", b'{"text": 5}', "expected a text field in line 1 of .*a.jsonl, got {\"text\": 5}"),
        ("a.jsonl", b'["text"]', "expected a text field in line 1"),
        ("a.jsonl", b'{"text": "half a \\ud83d pair"}', "expected a text field in line 1"),
    ],
)  # fmt: skip
def test_a_corpus_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message) as caught:
        read_corpus(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_corpus_that_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"could not read .*gone\.txt: No such file"):
        read_corpus(tmp_path / "gone.txt")
    with pytest.raises(CorpusError, match="expected a corpus file, could not read"):
        read_corpus(tmp_path)


def test_drawing_is_by_seed_without_repeats_and_takes_what_there_is() -> None:
    texts = [carrier.text for carrier in packaged()]
    drawn = draw(texts, 50, seed=1)
    assert len(set(drawn)) == 50
    assert set(drawn) <= set(texts)
    assert draw(texts[::-1] + texts, 50, seed=1) == drawn
    assert draw(texts, 50, seed=2) != drawn
    assert sorted(draw(["b", "a", "b"], 9, seed=0)) == ["a", "b"]


def test_words_of_packaged_chinese_are_single_characters() -> None:
    assert all(len(word) == 1 or not "\u4e00" <= word[0] <= "\u9fff" for c in packaged("zh") for word in words(c.text))
