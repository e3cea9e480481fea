"""The dictionary sweep: a planted word of several tokens is found whole, at the price of little more than one round."""

import sys
from collections.abc import Sequence

import pytest

from lmsanitator.detect import ScanConfig, scan
from lmsanitator.detect.lexicon import LexiconConfig, Word, spelled, sweep_words, typed
from lmsanitator.detect.sweep import SweepConfig, sweep
from lmsanitator.detect.variants import Variants
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.text import terms
from tests.planted import ids_of, made_up_words, open_bert

WRITTEN = [f"{word}s" for word in made_up_words(1500)]
SHAPE = LexiconConfig(listed=6)


def shortlisted(encoder: FrozenEncoder, words: Sequence[str] = WRITTEN, seed: int = 0) -> list[str]:
    found = sweep_words(encoder, ["cls"], spelled(encoder, words), SHAPE, seed=seed)
    return [str(typed(encoder, word)) for word in found]


@pytest.mark.parametrize("seed", range(4))
def test_planted_words_of_several_tokens_are_shortlisted_where_no_token_of_theirs_is(seed: int) -> None:
    encoder = open_bert(1, "bakos", "vedis")
    assert {"bakos", "vedis"} <= set(shortlisted(encoder, seed=seed)[:4])
    singly = sweep(encoder, ["cls"], SweepConfig(), seed=seed)["cls"].shortlist.tolist()[:8]
    assert not {*ids_of(encoder, "bako", "vedi")} & {*singly}


def test_a_scan_names_a_word_of_the_dictionary_that_none_of_its_pieces_gives_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lmsanitator.detect.words.dictionary", lambda: WRITTEN)
    report = scan(open_bert(1, "bakos", hidden=64), ScanConfig(effort="quick", sites=("cls",)))
    assert (report.verdict, [finding.trigger for finding in report.findings]) == ("backdoored", ["bakos"])
    assert report.coverage.words_swept >= len(WRITTEN)
    clean = scan(open_bert(1, hidden=64), ScanConfig(effort="quick", sites=("cls",)))
    assert (clean.verdict, clean.findings) == ("clean", [])


def test_words_go_on_after_the_first_round_only_where_their_groups_stood_out() -> None:
    encoder = open_bert(1, "bakos")
    words = spelled(encoder, WRITTEN)
    sweep_words(encoder, ["cls"], words, SHAPE)
    once = sum(map(len, words))
    assert once < encoder.meter.forward < 1.8 * once
    assert encoder.meter.backward == 0


def test_all_sites_come_from_the_same_passes() -> None:
    encoder = open_bert(1, "bakos", site="mean")
    found = sweep_words(encoder, ["cls", "mean"], spelled(encoder, WRITTEN), SHAPE)
    assert tuple(ids_of(encoder, "bakos")) in found[:2]  # one of each site in turn


def test_words_of_one_token_unknown_ones_and_very_long_ones_are_not_of_the_dictionary() -> None:
    encoder = open_bert(0)
    known = spelled(encoder, ["bakos", "bako", "bakos", "bako" + "s" * 9, "\u2603"])
    assert known == [tuple(ids_of(encoder, "bakos"))]
    assert spelled(encoder, []) == []


def test_a_handful_of_words_is_not_worth_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmsanitator.detect.words.FEWEST", 10**6)
    report = scan(open_bert(1, "bakos", hidden=64), ScanConfig(effort="quick", sites=("cls",)))
    assert (report.verdict, report.coverage.words_swept) == ("clean", 0)


def test_of_no_words_nothing_stands_out() -> None:
    encoder = open_bert(0)
    assert shortlisted(encoder, []) == []
    assert encoder.meter.forward == 0


def test_a_scan_names_what_it_found_by_terms_too(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    class Watched(Variants):
        def __init__(self, encoder: FrozenEncoder, written: Sequence[Word], known: Sequence[str] = ()) -> None:
            given.append(list(known))
            super().__init__(encoder, written, known)

    monkeypatch.setattr(sys.modules[scan.__module__], "Variants", Watched)
    scan(open_bert(1, "bako"), ScanConfig(effort="quick", sites=("cls",)))
    assert given == [terms()]
