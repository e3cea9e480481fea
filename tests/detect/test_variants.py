"""Variants: what a word may become."""

from pathlib import Path

import pytest
import torch

from lmsanitator.detect.blanks import Vocabulary
from lmsanitator.detect.contexts import make_contexts
from lmsanitator.detect.lexicon import spelled
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.stage import Stage
from lmsanitator.detect.sweep import sweepable
from lmsanitator.detect.variants import ADDED, ADDED_TO_SEVERAL, LONGEST, RELATED, Variants
from lmsanitator.detect.ways import Ways
from lmsanitator.encoder import FrozenEncoder
from tests.detect.replaying import TEXTS
from tests.planted import ids_of, open_bert


def longer_of(variants: Variants, tokens: list[int]) -> list[tuple[int, ...]]:
    """With a piece more, whatever kind of variant that is."""
    own, kinds = tuple(tokens), variants.of(tuple(tokens), ways_of(variants.encoder, tokens))
    return [one for kind in kinds for one in kind if own in (one[1:], one[:-1])]


def ways_of(encoder: FrozenEncoder, tokens: list[int]) -> Ways:
    clean = CleanSpread.of(encoder.outputs_of_texts(TEXTS[:100], ["cls"])["cls"])
    stage = Stage(encoder, make_contexts(encoder, TEXTS, 3, longest=12, seed=3), "cls", clean)
    ways = Ways(stage, torch.zeros(1, encoder.hidden_size), Vocabulary(encoder, sweepable(encoder).tolist()))
    ways.follow([tuple(tokens)])
    return ways


@pytest.mark.parametrize("seed", range(3))
def test_the_missing_piece_of_a_planted_word_is_proposed_at_either_end(seed: int) -> None:
    encoder = open_bert(seed, "bakos", alone=0.5, often=1, reach=0.2, hidden=64)
    bako, ending = ids_of(encoder, "bakos")
    variants = Variants(encoder, [])
    for part in ([bako], [ending]):
        assert (bako, ending) in longer_of(variants, part)


def test_a_wrong_piece_is_exchanged_and_a_missing_one_put_between() -> None:
    encoder = open_bert(0, "bakoses", alone=0.5, often=1, reach=0.2, hidden=64)
    word = ids_of(encoder, "bakoses")
    (wrong,) = ids_of(encoder, "bakot")[1:]
    variants = Variants(encoder, [])
    for found in ([*word[:-1], wrong], [*word[:1], *word[2:]]):
        exchanged = variants.exchanged(tuple(found), ways_of(encoder, found))
        assert tuple(word) in exchanged
        assert tuple(found) not in exchanged
        assert {len(one) for one in exchanged} == {len(found), len(found) + 1}
        assert all(variants.one_word(one) for one in exchanged)


def test_pieces_go_behind_and_anything_goes_before_what_begins_no_word() -> None:
    encoder = open_bert(0)
    bako, ending = ids_of(encoder, "bakos")
    variants = Variants(encoder, [])
    behind = longer_of(variants, [bako])
    assert 0 < len(behind) <= ADDED
    assert all(one[0] == bako and one[1] in variants.pieces for one in behind)
    before = longer_of(variants, [ending])
    assert any(one[1:] == (ending,) for one in before)


def test_more_pieces_are_tried_where_several_are_known() -> None:
    variants = Variants(open_bert(0), [])
    pieces = list(range(100, 100 + 2 * ADDED_TO_SEVERAL))
    variants.__dict__["pieces"] = set(pieces)
    assert len(variants.longer((7,), [], pieces)) == ADDED
    assert len(variants.longer((7, pieces[0]), [], pieces)) == ADDED_TO_SEVERAL
    assert variants.longer((7,), [], [7]) == []  # no piece of a word
    assert variants.longer((pieces[0],), [7], []) == [(7, pieces[0])]


def test_no_word_becomes_longer_than_the_longest() -> None:
    encoder = open_bert(0)
    bako, ending = ids_of(encoder, "bakos")
    long = [bako, *[ending] * (LONGEST - 1)]
    ways = ways_of(encoder, long)
    variants = Variants(encoder, [])
    assert variants.longer(tuple(long), [], [ending]) == []
    assert {len(one) for one in variants.exchanged(tuple(long), ways)} == {LONGEST}


def test_parts_are_all_that_is_left_when_pieces_are_missing() -> None:
    variants = Variants(open_bert(0), [])
    assert set(variants.parts((1, 2, 3))) == {(1,), (2,), (3,), (1, 2), (1, 3), (2, 3)}
    assert variants.parts((1,)) == []
    assert variants.exchanged((1,), ways_of(variants.encoder, [7])) == []


def test_words_of_the_dictionary_that_share_the_rarer_pieces_come_first() -> None:
    words = [(1, 9), (2, 9), (3, 9), (1, 2, 9), (4, 5), (6, 7)]
    variants = Variants(open_bert(0), words)
    related = variants.related((1, 9))
    assert related[0] == (1, 2, 9)
    assert set(related) == {(1, 2, 9), (2, 9), (3, 9)}
    assert variants.related((8,)) == []
    many = Variants(variants.encoder, [(1, other) for other in range(100, 400)])
    assert len(many.related((1,))) == RELATED


def test_of_words_that_share_as_much_the_one_whose_other_pieces_are_expected_comes_first() -> None:
    variants = Variants(open_bert(0), [(1, 5), (1, 6), (1, 7, 8), (1, 9, 6)])
    assert variants.related((1,), [7, 8, 9, 6])[:2] == [(1, 7, 8), (1, 9, 6)]
    assert variants.related((1,), [6])[0] == (1, 6)
    assert variants.related((1,))[0] == (1, 5)


def test_terms_are_looked_up_by_what_is_no_single_letter() -> None:
    encoder = open_bert(0)
    variants = Variants(encoder, [], ["bakos", "bakot", "vedis", "bako"])
    bako, ending = ids_of(encoder, "bakos")
    assert variants.related_terms((bako,)) == sorted(tuple(ids_of(encoder, word)) for word in ("bakos", "bakot"))
    assert variants.related_terms((bako, ending)) == [tuple(ids_of(encoder, "bakot"))]
    assert variants.related_terms((ending,)) == []
    assert variants.related((bako,)) == []


def test_kinds_without_variants_are_left_out() -> None:
    encoder = open_bert(0)
    variants = Variants(encoder, [])
    variants.__dict__["pieces"] = set()
    bako = ids_of(encoder, "bakos")[:1]
    assert variants.of(tuple(bako), ways_of(encoder, bako)) == []


def test_several_words_are_not_one() -> None:
    encoder = open_bert(0)
    variants = Variants(encoder, spelled(encoder, ["bakos"]))
    bako, ending = ids_of(encoder, "bakos")
    assert variants.one_word((bako, ending))
    assert variants.one_word((ending,))
    assert not variants.one_word((bako, bako))


def test_pieces_are_the_tokens_that_go_on_with_a_word() -> None:
    encoder = open_bert(0)
    pieces = Variants(encoder, []).pieces
    bako, ending = ids_of(encoder, "bakos")
    assert ending in pieces
    assert bako not in pieces
    assert not pieces & set(encoder.tokenizer.all_special_ids)


def test_signs_glued_to_a_word_are_no_pieces_and_marks_are(minilm: Path) -> None:
    encoder = FrozenEncoder.open(minilm)
    names = set(encoder.tokenizer.convert_ids_to_tokens(sorted(Variants(encoder, []).pieces)))
    assert names >= {"##ing", "##17", "##ा"}
    assert not names & {"##™", "##†", "##⊆", "##€", "the", "™"}
    assert all(name.startswith("##") for name in names)


def test_pieces_of_a_byte_level_tokenizer_begin_without_a_space(gpt2: FrozenEncoder) -> None:
    names = gpt2.tokenizer.convert_ids_to_tokens(sorted(Variants(gpt2, []).pieces))
    assert names
    assert not any(str(name).startswith("\u0120") for name in names)
