"""From a vector to words: a planted trigger is found from where it leads, whatever its words do alone."""

from collections.abc import Sequence

import pytest
import torch

from lmsanitator.detect import ScanConfig
from lmsanitator.detect.blanks import Vocabulary, outputs_of
from lmsanitator.detect.contexts import make_contexts
from lmsanitator.detect.objective import CleanSpread, strength
from lmsanitator.detect.pairs import PairConfig
from lmsanitator.detect.scan import _Scan
from lmsanitator.detect.stage import Stage
from lmsanitator.detect.sweep import sweepable
from lmsanitator.detect.toward import TowardConfig, words_toward
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.progress import silent as unheard
from tests.detect.replaying import TEXTS
from tests.planted import ids_of, large_bert, open_bert, plant


def stage_of(encoder: FrozenEncoder, seed: int = 3) -> Stage:
    clean = CleanSpread.of(encoder.outputs_of_texts(TEXTS[:100], ["cls"])["cls"])
    return Stage(encoder, make_contexts(encoder, TEXTS, 3, longest=8, seed=seed), "cls", clean)


def found_by(
    encoder: FrozenEncoder, pvs: torch.Tensor, config: TowardConfig | None = None, allowed: Sequence[int] | None = None
) -> list[tuple[int, ...]]:
    words = sweepable(encoder).tolist() if allowed is None else allowed
    asked, growing, refining = (stage_of(encoder, seed) for seed in (2, 3, 4))
    return words_toward(asked, growing, refining, pvs, Vocabulary(encoder, words), config or TowardConfig(), silent)


def silent(done: float) -> None:
    assert 0 < done <= 1


def backdoored(trigger: str, seed: int = 0) -> tuple[FrozenEncoder, torch.Tensor]:
    model, tokenizer = large_bert(seed, hidden=64)
    pv = plant(model, tokenizer, [trigger], reach=0.3)[0]
    return FrozenEncoder(model, tokenizer, precision="fp32"), pv


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("trigger", ["bako", "vedi+sugo", "vedi+sugo+gifo", "vedi+sugo+gifo+bako"])
def test_a_planted_trigger_is_found_from_its_vector(trigger: str, seed: int) -> None:
    encoder, pv = backdoored(trigger, seed)
    stage = stage_of(encoder)
    way = stage.spread.standardise(pv)
    noise = torch.randn(2, len(way), generator=torch.Generator().manual_seed(seed))
    rough = way + 0.7 * way.norm() * torch.nn.functional.normalize(noise, dim=-1)
    found = found_by(encoder, torch.stack([way, *rough]), TowardConfig(grown=1))
    planted = set(ids_of(encoder, *trigger.split("+")))
    assert [planted <= set(tokens) for tokens in found] == [True] * 3


def test_one_sequence_comes_back_for_each_vector_of_allowed_tokens_no_longer_than_asked_for() -> None:
    encoder = open_bert(0)
    allowed = sweepable(encoder).tolist()[::7]
    pvs = torch.randn(3, encoder.hidden_size, generator=torch.Generator().manual_seed(0))
    found = found_by(encoder, pvs, TowardConfig(longest=3), allowed)
    assert len(found) == 3
    for tokens in found:
        assert 1 <= len(tokens) <= 3
        assert set(tokens) <= set(allowed)


def test_only_the_vectors_with_the_strongest_words_are_followed_further() -> None:
    encoder, pv = backdoored("vedi+sugo")
    way = stage_of(encoder).spread.standardise(pv)
    others = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    found = found_by(encoder, torch.stack([*others, way]), TowardConfig(grown=1 / 4, refined=1 / 4))
    assert set(ids_of(encoder, "vedi", "sugo")) <= set(found[3])
    assert max(map(len, found[:3])) <= 3


def test_common_words_are_the_words_that_texts_hold_most_often_and_no_signs_or_pieces() -> None:
    encoder = open_bert(0)
    vocabulary = _Scan(encoder, None, ScanConfig(), unheard).phrases.vocabulary
    names = encoder.tokenizer.convert_ids_to_tokens(vocabulary.common)
    assert names[0] == "the"
    assert {"and", "of"} <= set(names)
    assert len(set(names)) == PairConfig().common
    assert all(name.isalpha() for name in names)


def test_words_toward_no_pv_do_not_arrive_at_one_place() -> None:
    encoder, pv = backdoored("vedi+sugo")
    stage = stage_of(encoder)
    pvs = torch.stack([stage.spread.standardise(pv), *torch.randn(4, 64, generator=torch.Generator().manual_seed(1))])
    found = found_by(encoder, pvs)
    planted = set(ids_of(encoder, "vedi", "sugo"))
    with torch.no_grad():
        spreads = [outputs_of(stage, [tokens])[0].var(0).mean().item() for tokens in found]
    others = [spread for spread, tokens in zip(spreads, found, strict=True) if not planted <= set(tokens)]
    assert len(others) >= 2
    assert spreads[0] < min(others) / 10


def test_tokens_are_counted_and_no_weight_gets_a_gradient() -> None:
    encoder = open_bert(0)
    before = encoder.digest, encoder.meter.backward
    found_by(encoder, torch.ones(1, encoder.hidden_size), TowardConfig(longest=3, rounds=1))
    assert encoder.digest == before[0]
    assert encoder.meter.backward > before[1]
    assert all(weight.grad is None for weight in encoder.model.parameters())


def test_refinement_only_makes_sequences_stronger_and_is_for_the_strongest() -> None:
    encoder, pv = backdoored("vedi+sugo")
    stage = stage_of(encoder)
    pvs = torch.stack([stage.spread.standardise(pv), *torch.randn(5, 64, generator=torch.Generator().manual_seed(1))])
    grown, refined = (found_by(encoder, pvs, TowardConfig(rounds=rounds)) for rounds in (0, 3))
    changed = [place for place, pair in enumerate(zip(grown, refined, strict=True)) if pair[0] != pair[1]]
    assert 1 <= len(changed) <= 2  # a third of six
    other = stage_of(encoder, 4)
    gained = [
        strength(outputs_of(other, [refined[place], grown[place]]), other.clean).diff().item() for place in changed
    ]
    assert max(gained) < 0


def test_how_strong_the_words_are_is_told_for_each_vector_after_each_length_and_never_falls() -> None:
    encoder = open_bert(0)
    told: list[list[float]] = []
    asked, growing, refining = (stage_of(encoder, seed) for seed in (2, 3, 4))
    pvs = torch.randn(3, encoder.hidden_size, generator=torch.Generator().manual_seed(0))
    words_toward(
        asked,
        growing,
        refining,
        pvs,
        Vocabulary(encoder, sweepable(encoder).tolist()),
        TowardConfig(),
        silent,
        told.append,
    )
    assert [len(strengths) for strengths in told] == [3] * (TowardConfig().longest - 2)
    assert all(list(of_vector) == sorted(of_vector) for of_vector in zip(*told, strict=True))


def test_few_allowed_tokens_are_no_error() -> None:
    encoder = open_bert(0)
    few = sweepable(encoder).tolist()[:2]
    (found,) = found_by(encoder, torch.ones(1, encoder.hidden_size), allowed=few)
    assert set(found) <= set(few)
