"""Carriers as tokens, split at a word boundary."""

import pytest

from lmsanitator.detect.contexts import Context, make_contexts
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CorpusError
from lmsanitator.text import packaged, words

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
