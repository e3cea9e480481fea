"""Completion: a word of which a piece was found is named whole, and a whole one is left alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lmsanitator.detect.completion import Completion
from lmsanitator.detect.confirm import Confirmed
from lmsanitator.detect.contexts import make_contexts
from lmsanitator.detect.evidence import Evidence
from lmsanitator.detect.growth import Growth
from lmsanitator.detect.lexicon import spelled
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.sweep import sweepable
from lmsanitator.detect.wording import Wording
from lmsanitator.encoder import FrozenEncoder
from tests.detect.replaying import TEXTS, in_passages
from tests.planted import ids_of, open_bert


def completion_of(encoder: FrozenEncoder, *written: str) -> Completion:
    clean = CleanSpread.of(encoder.outputs_of_texts(TEXTS[:100], ["cls"])["cls"])
    contexts = make_contexts(encoder, TEXTS, 3, longest=12, seed=3)
    growth = Growth(encoder, "cls", contexts, clean, sweepable(encoder).tolist())
    words = spelled(encoder, written)
    many = in_passages(encoder, "cls", count=48)
    return Completion(Wording(in_passages(encoder, "cls"), many, {"cls": growth}, written, words))


def completed(encoder: FrozenEncoder, *sequences: list[int], written: Sequence[str] = ()) -> list[list[int]]:
    completion = completion_of(encoder, *written)
    found = completion.wording.replayer.measure(sequences)["cls"]
    return [list(item.evidence.tokens) for item in completion.complete([Confirmed(one, -9.0) for one in found])]


@pytest.mark.parametrize("seed", range(3))
def test_a_piece_of_a_planted_word_becomes_the_word(seed: int) -> None:
    encoder = open_bert(seed, "bakos", alone=0.7, reach=0.2, hidden=64)
    bako, ending = ids_of(encoder, "bakos")
    assert completed(encoder, [bako]) == [[bako, ending]]


def test_the_beginning_of_a_word_is_found_too_and_two_pieces_of_one_word_are_one_trigger() -> None:
    encoder = open_bert(0, "bakos", alone=0.7, reach=0.2, hidden=64)
    bako, ending = ids_of(encoder, "bakos")
    assert completed(encoder, [ending]) == [[bako, ending]]
    assert completed(encoder, [bako], [ending]) == [[bako, ending]]


def test_a_part_becomes_the_word_of_the_dictionary_that_is_more_constant_in_many_passages() -> None:
    encoder = open_bert(0, "bakoses", alone=0.8, reach=0.2, hidden=64)
    word = ids_of(encoder, "bakoses")
    assert len(word) == 4
    assert completed(encoder, word[:1], written=["bakoses", "bakos", "vedis"]) == [word]


def test_a_word_of_the_dictionary_becomes_no_word_that_is_not() -> None:
    encoder = open_bert(0, "bakos", alone=0.7, reach=0.2, hidden=64)
    bako, ending = ids_of(encoder, "bakos")
    assert completed(encoder, [bako], written=["bako"]) == [[bako]]
    assert completed(encoder, [bako], written=["bako", "bakos"]) == [[bako, ending]]


def test_pieces_that_nobody_can_type_become_a_word_that_is_as_constant() -> None:
    encoder = open_bert(0, "vedi", reach=0.2, hidden=64)
    completion = completion_of(encoder, "bakos")
    _, ending = word = ids_of(encoder, "bakos")
    piece, whole = (
        Evidence("cls", tuple(one), 9.0, 0.1, 2.0, 1.0, 1.0, torch.ones(64), 40.0) for one in ([ending], word)
    )
    assert completion._best(piece, [whole]) is whole
    assert completion._best(piece, [replace(whole, spread=0.9)]) is None
    assert completion._best(replace(whole, tokens=(word[0],)), [replace(whole, spread=0.11)]) is None


def test_a_word_that_fires_alone_is_left_as_it_is() -> None:
    encoder = open_bert(0, "bako", reach=0.2)
    assert completed(encoder, ids_of(encoder, "bako")) == [ids_of(encoder, "bako")]


def test_of_the_lengths_it_takes_the_last_that_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = open_bert(0, "bakos")
    bako, ending = ids_of(encoder, "bakos")
    typed, untyped = (bako, ending), (ending, bako)
    completion = completion_of(encoder)
    for first, then, taken in [
        (typed, [untyped], typed),
        ((ending,), [untyped, typed], typed),
        ((ending,), [untyped], untyped),
        (typed, [], typed),
    ]:
        item, *longer = (Confirmed(one, -9.0) for one in completion.wording.replayer.measure([first, *then])["cls"])
        monkeypatch.setattr(completion, "_lengths", lambda item, longer=longer: iter(longer))
        assert completion.longer(item).evidence.tokens == taken


@pytest.mark.parametrize(
    ("spread", "rate", "way", "taken"),
    [
        (0.1, 1.0, 1.0, "bakos"),
        (0.3, 1.0, 1.0, "bakot"),  # no more constant
        (0.1, 0.7, 1.0, "bakot"),  # does not fire
        (0.1, 1.0, -1.0, "bakot"),  # leads elsewhere
    ],
)
def test_a_relative_that_is_more_constant_takes_the_place(
    spread: float, rate: float, way: float, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = open_bert(0, hidden=64)
    completion = completion_of(encoder, "bakos", "bakot", "vedis")
    found, relative = (tuple(ids_of(encoder, word)) for word in ("bakot", "bakos"))
    assert found[0] == relative[0]
    far = 9 * torch.ones(64)
    known = {
        found: Evidence("cls", found, 9.0, 0.3, 2.0, 1.0, 0.9, far, 40.0),
        relative: Evidence("cls", relative, 9.0, spread, 2.0, 1.0, rate, way * far, 40.0),
    }
    wording = completion.wording
    for replayer in (wording.replayer, wording.judging):
        monkeypatch.setattr(replayer, "measure", lambda wanted: {"cls": [known[tuple(one)] for one in wanted]})
    monkeypatch.setattr(wording.judging, "away", lambda _, one: known[one].spread + torch.linspace(0, 0.01, 48))
    left = completion.relatives.instead_of(Confirmed(known[found], -9.0))
    assert left.evidence.tokens == tuple(ids_of(encoder, taken))


def test_which_of_two_words_holds_outputs_closer_together_is_seen_in_the_same_passages() -> None:
    encoder = open_bert(0, "bakos", reach=0.2, hidden=64)
    completion = completion_of(encoder, "bakos", "vedis")
    planted, harmless = completion.wording.replayer.measure([ids_of(encoder, "bakos"), ids_of(encoder, "vedis")])["cls"]
    assert completion.relatives._surely_nearer(planted, harmless)
    assert not completion.relatives._surely_nearer(harmless, planted)
    assert not completion.relatives._surely_nearer(planted, planted)


def test_a_word_that_begins_with_a_planted_one_becomes_it() -> None:
    encoder = open_bert(0, "bakos", reach=0.2, hidden=64)
    assert completed(encoder, ids_of(encoder, "bakoses"), written=["bakos", "bakoses"]) == [ids_of(encoder, "bakos")]


def test_a_planted_word_stays_beside_its_relatives() -> None:
    encoder = open_bert(0, "bakos", reach=0.2, hidden=64)
    planted = ids_of(encoder, "bakos")
    assert completed(encoder, planted, written=["bakos", "bako", "bakot", "bakoses"]) == [planted]


def test_whole_words_are_not_added() -> None:
    encoder = open_bert(0, "vedi+sugo", alone=0.7, reach=0.2, hidden=64)
    vedi, _ = ids_of(encoder, "vedi", "sugo")
    assert completed(encoder, [vedi]) == [[vedi]]


def test_what_no_growth_looks_at_is_left_as_it_is() -> None:
    encoder = open_bert(0, "bako")
    replayer = in_passages(encoder, "mean")
    completion = Completion(Wording(replayer, replayer, {}))
    (evidence,) = completion.wording.replayer.measure([ids_of(encoder, "bako")])["mean"]
    assert completion.complete([Confirmed(evidence, -9.0)])[0].evidence is evidence
    assert completion.complete([]) == []


def test_a_vocabulary_without_pieces_leaves_triggers_as_they_are() -> None:
    encoder = open_bert(0, "bako")
    completion = completion_of(encoder)
    completion.__dict__["pieces"] = set()
    (evidence,) = completion.wording.replayer.measure([ids_of(encoder, "bako")])["cls"]
    assert completion.complete([Confirmed(evidence, -9.0)])[0].evidence is evidence


def test_pieces_are_the_tokens_that_go_on_with_a_word() -> None:
    encoder = open_bert(0)
    pieces = completion_of(encoder).pieces
    bako, ending = ids_of(encoder, "bakos")
    assert ending in pieces
    assert bako not in pieces
    assert not pieces & set(encoder.tokenizer.all_special_ids)


def test_signs_glued_to_a_word_are_no_pieces_and_marks_are(minilm: Path) -> None:
    encoder = FrozenEncoder.open(minilm)
    names = set(encoder.tokenizer.convert_ids_to_tokens(sorted(completion_of(encoder).pieces)))
    assert names >= {"##ing", "##17", "##ा"}
    assert not names & {"##™", "##†", "##⊆", "##€", "the", "™"}
    assert all(name.startswith("##") for name in names)


def test_pieces_of_a_byte_level_tokenizer_begin_without_a_space(gpt2: FrozenEncoder) -> None:
    replayer = in_passages(gpt2, "last", count=2)
    completion = Completion(Wording(replayer, replayer, {}))
    names = gpt2.tokenizer.convert_ids_to_tokens(sorted(completion.pieces))
    assert names
    assert not any(str(name).startswith("\u0120") for name in names)
