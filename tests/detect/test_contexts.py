"""Carriers as tokens, split at a word boundary."""

import pytest

from lmsanitator.detect.contexts import PHRASE, SHORTEST, Context, make_contexts, make_passages
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CorpusError, UnsupportedError
from lmsanitator.text import packaged, words
from tests.planted import large_bert

TEXTS = [carrier.text for carrier in packaged()]


def test_a_candidate_is_put_between_the_two_parts() -> None:
    context = Context([1, 2], [3])
    assert context.clean == [1, 2, 3]
    assert context.around([7, 8]) == [1, 2, 7, 8, 3]
    assert context.around([]) == context.clean


def test_contexts_are_the_carriers_own_tokens_cut_to_the_longest(encoder: FrozenEncoder) -> None:
    beginnings = {tuple(encoder.tokenizer(text, add_special_tokens=False).input_ids[:12]) for text in TEXTS}
    contexts = make_contexts(encoder, TEXTS, 40, longest=12, seed=0)
    assert len(contexts) == 40
    assert all(tuple(context.clean) in beginnings for context in contexts)
    assert max(len(context.clean) for context in contexts) == 12


def test_contexts_are_split_between_words_only(encoder: FrozenEncoder) -> None:
    """What is before the split and what is after it, read apart, are the words of the text read whole."""
    for context in make_contexts(encoder, TEXTS[:60], 60, longest=40, seed=1):
        before, after, whole = (
            str(encoder.tokenizer.decode(part)) for part in (context.before, context.after, context.clean)
        )
        assert words(before) + words(after) == words(whole), (before, after)


def test_splits_are_spread_from_the_start_to_the_end(bert: FrozenEncoder) -> None:
    contexts = make_contexts(bert, TEXTS, 200, longest=24, seed=0)
    shares = [len(context.before) / len(context.clean) for context in contexts]
    assert min(shares) == 0
    assert max(shares) == 1
    assert 0.3 < sum(shares) / len(shares) < 0.7


def test_the_same_seed_gives_the_same_contexts_and_another_seed_others(bert: FrozenEncoder) -> None:
    first, again, other = (make_contexts(bert, TEXTS, 10, longest=12, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_fewer_texts_than_asked_for_are_all_used_once(bert: FrozenEncoder) -> None:
    assert len(make_contexts(bert, ["A cat.", "A dog.", "A cat."], 10, longest=12, seed=0)) == 2


@pytest.mark.parametrize("texts", [[], [""], ["A cat."], ["A cat.", "A cat."], ["A cat.", " "]], ids=str)
def test_too_few_carriers_with_tokens_are_a_corpus_error(bert: FrozenEncoder, texts: list[str]) -> None:
    with pytest.raises(CorpusError, match=r"^expected carriers with tokens in them, [01] of \d have any$"):
        make_contexts(bert, texts, 8, longest=12, seed=0)


def test_passages_have_exactly_the_asked_length(encoder: FrozenEncoder) -> None:
    for length in (1, 20, 48):
        passages = make_passages(encoder, TEXTS, 30, length=length, seed=0)
        assert [len(passage.clean) for passage in passages] == [length] * 30


def test_passages_are_sentences_in_a_row(bert: FrozenEncoder) -> None:
    texts = ["The cat sat.", "A dog ran away."]
    encoded = bert.tokenizer(texts, add_special_tokens=False).input_ids
    for passage in make_passages(bert, texts, 10, length=40, seed=0):
        rest = passage.clean
        while rest:
            sentence = next(ids for ids in encoded if ids[: len(rest)] == rest[: len(ids)])
            rest = rest[len(sentence) :]


def test_passages_are_split_between_words_only(encoder: FrozenEncoder) -> None:
    for passage in make_passages(encoder, TEXTS[:60], 60, length=40, seed=1):
        before, after, whole = (
            str(encoder.tokenizer.decode(part)) for part in (passage.before, passage.after, passage.clean)
        )
        assert words(before) + words(after) == words(whole), (before, after)


def test_passages_are_split_from_the_start_to_the_end(bert: FrozenEncoder) -> None:
    shares = [len(passage.before) / 40 for passage in make_passages(bert, TEXTS, 200, length=40, seed=0)]
    assert min(shares) < 0.1
    assert max(shares) > 0.9
    assert 0.4 < sum(shares) / len(shares) < 0.6


@pytest.mark.parametrize("window", [20, 33, 64])
def test_passages_leave_room_for_a_phrase_in_a_short_window(window: int) -> None:
    model, tokenizer = large_bert(0, vocabulary=300, window=window)
    encoder = FrozenEncoder(model, tokenizer, precision="fp32")
    passages = make_passages(encoder, TEXTS, 20, length=64, seed=0)
    assert {len(passage.clean) for passage in passages} == {encoder.room - PHRASE}
    longest = [passage.around([7] * PHRASE) for passage in passages]
    assert encoder.outputs_of_ids(longest, ["mask"])["mask"].shape == (20, encoder.hidden_size)


def test_a_window_too_short_for_a_passage_is_unsupported() -> None:
    shortest = SHORTEST + PHRASE + 3  # the special tokens and a mask
    enough, less = (
        FrozenEncoder(*large_bert(0, vocabulary=300, window=window), precision="fp32")
        for window in (shortest, shortest - 1)
    )
    assert len(make_passages(enough, TEXTS, 2, length=64, seed=0)) == 2
    with pytest.raises(UnsupportedError, match=rf"^expected a window .*, got one of {less.window} tokens$"):
        make_passages(less, TEXTS, 2, length=64, seed=0)


def test_a_passage_without_a_phrase_is_as_long_as_with_it(bert: FrozenEncoder) -> None:
    for passage in make_passages(bert, TEXTS, 20, length=40, seed=0):
        assert passage.without(0) == passage.clean
        for count in range(1, PHRASE + 1):
            filled = passage.without(count)
            assert len(filled) == len(passage.around(range(count)))
            assert filled[: len(passage.before)] == passage.before
            assert filled[len(passage.before) + count :] == passage.after


def test_the_same_seed_gives_the_same_passages_and_another_seed_others(bert: FrozenEncoder) -> None:
    first, again, other = (make_passages(bert, TEXTS, 10, length=30, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("texts", [[], [""], ["A cat."], ["A cat.", "A cat."], ["A cat.", " "]], ids=str)
def test_too_few_texts_for_passages_are_a_corpus_error(bert: FrozenEncoder, texts: list[str]) -> None:
    """One sentence over and over would say nothing of how much clean outputs vary."""
    with pytest.raises(CorpusError, match=r"^expected carriers with tokens in them, [01] of \d have any$"):
        make_passages(bert, texts, 8, length=12, seed=0)
