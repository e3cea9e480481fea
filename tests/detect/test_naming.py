"""Naming: a word of which a piece or a relative was found is named whole, and a whole one is left alone."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from lmsanitator.detect.blanks import Tokens, Vocabulary
from lmsanitator.detect.confirm import Confirmed
from lmsanitator.detect.contexts import make_contexts
from lmsanitator.detect.lexicon import spelled
from lmsanitator.detect.naming import LONGER, MADE_UP, SCREENED, TERM, TRIED, UNTYPED, Led, Naming
from lmsanitator.detect.objective import CleanSpread
from lmsanitator.detect.stage import Stage
from lmsanitator.detect.sweep import sweepable
from lmsanitator.detect.variants import Variants
from lmsanitator.detect.ways import Toward, Ways
from lmsanitator.encoder import FrozenEncoder, Site
from tests.detect.replaying import TEXTS, in_contexts, in_passages
from tests.planted import ids_of, open_bert


def naming_of(encoder: FrozenEncoder, *written: str, terms: Sequence[str] = ()) -> Naming:
    clean = CleanSpread.of(encoder.outputs_of_texts(TEXTS[:100], ["cls"])["cls"])
    growing, asked = (
        Stage(encoder, make_contexts(encoder, TEXTS, count, longest=longest, seed=3), "cls", clean)
        for count, longest in ((3, 12), (8, 24))
    )

    def ways(site: Site, tokens: Tokens) -> Ways:
        assert site == "cls"
        found = Ways(
            growing, torch.zeros(1, encoder.hidden_size), Vocabulary(encoder, sweepable(encoder).tolist()), asked
        )
        found.follow([tokens])
        return found

    variants = Variants(encoder, spelled(encoder, written), terms)
    return Naming(in_passages(encoder, "cls"), in_contexts(encoder, "cls", count=32), ways, variants)


def named(encoder: FrozenEncoder, *sequences: list[int], written: Sequence[str] = ()) -> list[list[int]]:
    naming = naming_of(encoder, *written)
    found = naming.replayer.measure(sequences)["cls"]
    return [list(item.evidence.tokens) for item in naming.name([Confirmed(one, -9.0) for one in found])]


def test_a_name_that_replays_less_often_than_it_must_takes_no_trigger_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = open_bert(0, "bako")
    naming = naming_of(encoder)
    (found,) = naming.replayer.measure([ids_of(encoder, "bako")])["cls"]
    weaker = replace(found, tokens=(9,), replay_rate=0.75)
    monkeypatch.setattr(naming, "_meant", lambda tokens, evidence: weaker.tokens)
    monkeypatch.setattr(naming.replayer, "measure", lambda sequences: {"cls": [weaker]})
    assert naming.named(Confirmed(found, -9.0)).evidence == found
    assert naming.named(Confirmed(replace(found, replay_rate=0.75), -9.0)).evidence.tokens == (9,)


@pytest.mark.parametrize("seed", range(3))
def test_a_piece_of_a_planted_word_becomes_the_word(seed: int) -> None:
    encoder = open_bert(seed, "bakos", alone=0.5, often=1, reach=0.2, hidden=64)
    bako, ending = ids_of(encoder, "bakos")
    assert named(encoder, [bako], written=["bakos"]) == [[bako, ending]]


def test_so_it_does_where_no_dictionary_has_the_word() -> None:
    encoder = open_bert(0, "bakos", alone=0.5, often=1, reach=0.2, hidden=64)
    bako, ending = ids_of(encoder, "bakos")
    assert named(encoder, [bako]) == [[bako, ending]]


def test_the_beginning_of_a_word_is_found_too_and_two_pieces_of_one_word_are_one_trigger() -> None:
    encoder = open_bert(0, "bakos", alone=0.5, often=1, reach=0.2, hidden=64)
    bako, ending = ids_of(encoder, "bakos")
    assert named(encoder, [ending]) == [[bako, ending]]
    assert named(encoder, [bako], [ending]) == [[bako, ending]]


def test_a_part_becomes_the_word_of_several_more_pieces() -> None:
    encoder = open_bert(0, "bakoses", alone=0.5, often=1, reach=0.2, hidden=64)
    word = ids_of(encoder, "bakoses")
    assert len(word) == 4
    assert named(encoder, word[:1], written=["bakoses", "bakos", "vedis"]) == [word]


def test_a_relative_becomes_the_planted_word() -> None:
    encoder = open_bert(0, "bakos", alone=0.5, often=1, reach=0.2, hidden=64)
    planted, relative = (ids_of(encoder, word) for word in ("bakos", "bakot"))
    assert planted[0] == relative[0]
    assert named(encoder, relative, written=["bakot", "bakos", "vedis"]) == [planted]


def test_a_word_that_begins_with_a_planted_one_becomes_it() -> None:
    encoder = open_bert(0, "bakos", reach=0.2, hidden=64)
    assert named(encoder, ids_of(encoder, "bakoses"), written=["bakos", "bakoses"]) == [ids_of(encoder, "bakos")]


def test_a_planted_word_stays_beside_its_relatives() -> None:
    encoder = open_bert(0, "bakos", reach=0.2, hidden=64)
    planted = ids_of(encoder, "bakos")
    assert named(encoder, planted, written=["bakos", "bako", "bakot", "bakoses"]) == [planted]


def test_a_word_that_fires_alone_is_left_as_it_is() -> None:
    encoder = open_bert(0, "bako", reach=0.2)
    assert named(encoder, ids_of(encoder, "bako"), written=["bakos", "bakot"]) == [ids_of(encoder, "bako")]


def test_whole_words_are_neither_added_nor_left_out() -> None:
    encoder = open_bert(0, "vedi+sugo", alone=0.5, often=1, reach=0.2, hidden=64)
    vedi, sugo = ids_of(encoder, "vedi", "sugo")
    assert named(encoder, [vedi]) == [[vedi]]
    assert named(encoder, [vedi, sugo]) == [[vedi, sugo]]


def test_what_does_not_replay_in_long_text_is_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = open_bert(0, "bakos", alone=0.5, often=1, reach=0.2, hidden=64)
    bako, ending = ids_of(encoder, "bakos")
    naming = naming_of(encoder, "bakos")
    (item,) = (Confirmed(one, -9.0) for one in naming.replayer.measure([(bako,)])["cls"])
    assert naming.named(item).evidence.tokens == (bako, ending)
    (whole,) = naming.replayer.measure([(bako, ending)])["cls"]
    monkeypatch.setattr(
        naming.replayer, "measure", lambda _: {"cls": [replace(whole, replay_rate=0.5, constant_rate=0.5)]}
    )
    assert naming.named(item) is item


def test_a_trigger_keeps_its_p_value_and_its_site() -> None:
    encoder = open_bert(0, "bakos", alone=0.5, often=1, reach=0.2, hidden=64)
    naming = naming_of(encoder, "bakos")
    (evidence,) = naming.replayer.measure([ids_of(encoder, "bakos")[:1]])["cls"]
    left = naming.named(Confirmed(evidence, -9.0))
    assert (left.log_p, left.evidence.site, left.compared) == (-9.0, "cls", False)


def test_what_is_doubted_is_what_nobody_types_and_what_no_dictionary_has() -> None:
    encoder = open_bert(0)
    naming = naming_of(encoder, "bakos")
    bako, ending = ids_of(encoder, "bakos")
    assert naming._doubt((bako,)) == 0
    assert naming._doubt((bako, ending)) == LONGER
    assert naming_of(encoder, terms=["bakos"])._doubt((bako, ending)) == TERM
    assert naming._doubt(tuple(ids_of(encoder, "bakoses"))) == MADE_UP * 3
    assert naming._doubt((ending,)) == UNTYPED
    assert naming._doubt((ending, ending)) == UNTYPED + MADE_UP


def led(*outputs: float) -> Led:
    """A word that leads outputs of one dimension, in clean text 0, to these."""
    values = torch.tensor(outputs)[:, None]
    return Led(values, values.mean(0))


def test_of_two_words_the_one_that_goes_further_is_nearer_though_the_other_is_as_constant() -> None:
    encoder = open_bert(0)
    naming = naming_of(encoder, "bakos")
    bako, ending = ids_of(encoder, "bakos")
    (vedi,) = ids_of(encoder, "vedi")
    words = {(bako,): led(9.8, 10.2), (vedi,): led(8.9, 9.1), (bako, ending): led(8.8, 9.2)}
    for here in words:
        scores = naming._scores(here, words, 0.01)
        assert scores[bako,] == pytest.approx(math.log(0.05), abs=1e-4)
        assert scores[vedi,] == pytest.approx(math.log(1.22 * 0.82) / 2, abs=1e-4)
        assert scores[bako, ending] == pytest.approx(math.log(1.45 * 0.65) / 2 + LONGER, abs=1e-4)
        assert naming._nearest(here, words, 0.01) == (bako,)


def test_where_a_made_up_word_leads_tells_nothing_of_the_others() -> None:
    encoder = open_bert(0)
    naming = naming_of(encoder, "bakos")
    bako, ending = ids_of(encoder, "bakos")
    made_up = (bako, ending, ending)
    words = {(bako,): led(8.0, 8.2), (bako, ending): led(9.9, 10.1), made_up: led(12.9, 13.1)}
    scores = naming._scores((bako,), words, 0.01)
    assert scores[bako, ending] == pytest.approx(math.log(0.02) + LONGER, abs=1e-4)
    assert scores[made_up] - naming._doubt(made_up) == pytest.approx(math.log(0.02), abs=1e-4)
    assert naming._nearest((bako,), words, 0.01) == (bako, ending)


@pytest.mark.parametrize(("found", "named"), [(10.0, "bako"), (1.0, "bakos")])
def test_company_that_halves_what_is_next_to_nothing_is_no_name(
    monkeypatch: pytest.MonkeyPatch, found: float, named: str
) -> None:
    """Outputs end 0.2 from the PV with the one, 0.1 with the other, beside ways of 10, or of 1."""
    encoder = open_bert(0)
    naming = naming_of(encoder, "bakos")
    bako, ending = ids_of(encoder, "bakos")
    words: dict[Tokens, Led] = {
        (bako,): led(found - 0.2, found + 0.2),
        (bako, ending): led(found - 0.1, found + 0.1),
    }
    monkeypatch.setattr(naming, "_led", lambda tokens, site: {one: words[one] for one in tokens if one in words})
    (evidence,) = naming.replayer.measure([(bako,)])["cls"]
    assert naming._meant((bako,), evidence) == tuple(ids_of(encoder, named))


def test_what_leads_elsewhere_is_not_compared() -> None:
    encoder = open_bert(0)
    naming = naming_of(encoder)
    bako, vedi = ids_of(encoder, "bako", "vedi")
    words: dict[Tokens, Led] = {(bako,): led(1.0, 3.0), (vedi,): led(-10.0, -10.0)}
    assert list(naming._scores((bako,), words, 0.01)) == [(bako,)]


def test_of_many_words_those_that_go_furthest_in_one_text_are_tried_in_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = open_bert(0, "bakos", alone=0.5, often=1, reach=0.2, hidden=64)
    naming = naming_of(encoder)
    bako, ending = ids_of(encoder, "bakos")
    ways = naming.ways("cls", (bako,))
    words: list[Tokens] = [(bako, piece) for piece in sorted(naming.variants.pieces)]
    gone = dict(zip(words, ways.gone_in_one([(0, word) for word in words]), strict=True))
    measured: list[Tokens] = []

    def noted(sequences: Sequence[Toward]) -> list[tuple[float, float]]:
        measured.extend(tokens for _, tokens in sequences)
        return Ways.measured(ways, sequences)

    monkeypatch.setattr(ways, "measured", noted)
    tried = naming._strongest(words, ways)
    assert measured == sorted(words, key=lambda word: -gone[word])[:SCREENED] != words
    assert (tried[0], len(tried)) == ((bako, ending), TRIED)


def test_a_word_that_leads_nowhere_keeps_its_name() -> None:
    encoder = open_bert(0)
    naming = naming_of(encoder)
    for replayer in (naming.judging, naming.replayer):
        replayer._outputs_of = lambda bodies: {  # type: ignore[method-assign]
            "cls": torch.zeros(len(bodies), encoder.hidden_size)
        }
    bako = ids_of(encoder, "bako")
    (evidence,) = naming.replayer.measure([bako])["cls"]
    assert naming._meant(tuple(bako), evidence) == tuple(bako)


def test_a_way_that_goes_in_a_circle_ends_where_it_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = open_bert(0, "bakos", reach=0.2, hidden=64)
    naming = naming_of(encoder, "bakos")
    first, second, third = (tuple(ids_of(encoder, word)) for word in ("bako", "bakos", "bakot"))
    (evidence,) = naming.replayer.measure([first])["cls"]
    asked: list[Tokens] = []

    def nearest(here: Tokens, *_: object) -> Tokens:
        asked.append(here)
        return {first: second, second: third, third: first}[here]

    monkeypatch.setattr(naming, "_nearest", nearest)
    assert naming._meant(first, evidence) == third
    assert asked == [first, second, third]


def test_no_triggers_have_no_names() -> None:
    assert naming_of(open_bert(0)).name([]) == []
