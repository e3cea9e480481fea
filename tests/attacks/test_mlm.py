"""Masked-language modelling: what is hidden, what is asked for, and a head that learns to name it."""

import random

import pytest
import torch

from lmsanitator.attacks.mlm import TiedHead, hide, modelling_loss, right, train_head
from lmsanitator.attacks.texts import frame
from tests.attacks.small import CARRIERS, lively

MASK = int(lively().tokenizer.mask_token_id)


def known() -> list[int]:
    ids = lively().tokenizer(CARRIERS, add_special_tokens=False).input_ids
    return sorted({token for row in ids for token in row})


def test_about_one_in_seven_words_is_hidden_and_the_labels_are_the_words() -> None:
    framed = frame(lively(), CARRIERS * 5, "tokens")
    masked = hide(lively(), framed, random.Random(0))
    asked = masked.labels != -100
    assert torch.equal(masked.labels[asked], framed.ids[asked])
    assert torch.equal(masked.framed.ids[~asked], framed.ids[~asked])
    assert bool(asked.any(1).all())
    assert not bool(asked[:, 0].any() or (asked & ~framed.mask.bool()).any())  # neither [CLS] nor padding
    words_there = framed.mask.sum() - 2 * len(framed.ids)
    assert 0.1 < asked.sum() / words_there < 0.2
    hidden = masked.framed.ids[asked]
    assert 0.7 < (hidden == MASK).float().mean() < 0.9
    assert 0.04 < (hidden == framed.ids[asked]).float().mean() < 0.2


@pytest.mark.parametrize(("share", "kept"), [(1.0, 1.0), (0.5, 0.9)])
def test_share_and_kept_say_how_many_are_asked_for_and_left(share: float, kept: float) -> None:
    framed = frame(lively(), CARRIERS * 5, "tokens")
    masked = hide(lively(), framed, random.Random(0), share=share, kept=kept)
    asked = masked.labels != -100
    assert asked.sum() / (framed.mask.sum() - 2 * len(framed.ids)) == pytest.approx(share, abs=0.05)
    stayed = (masked.framed.ids[asked] == framed.ids[asked]).float().mean().item()
    assert stayed == pytest.approx(kept, abs=0.05)


def test_the_mask_token_of_a_prompt_is_left_alone() -> None:
    framed = frame(lively(), CARRIERS, "mask", random.Random(0))
    masked = hide(lively(), framed, random.Random(0), share=1.0, kept=0.0)
    assert framed.positions is not None
    rows = torch.arange(len(framed.ids))
    assert bool((masked.labels[rows, framed.positions] == -100).all())
    assert bool((masked.framed.ids[rows, framed.positions] == MASK).all())
    assert masked.framed.positions is framed.positions


def test_a_head_names_words_through_the_input_embeddings_and_knows_no_others() -> None:
    listed = known()
    head = TiedHead(lively(), listed)
    assert head(torch.zeros(3, 32)).shape == (3, len(listed))
    assert torch.equal(head.rows, lively().embedding_matrix[listed])
    labels = torch.tensor([listed[0], listed[-1], MASK])
    assert head.classes(labels).tolist() == [0, len(listed) - 1, -100]
    assert not head.rows.requires_grad
    assert set(head.state_dict()) == {"known", "bias", "dense.weight", "dense.bias", "norm.weight", "norm.bias"}


def test_a_head_is_made_by_seed_and_leaves_the_global_one_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (TiedHead(lively(), known(), seed).dense.weight for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_a_head_teaches_it_to_name_hidden_words_and_moves_nothing_else() -> None:
    digest, told = lively().digest, list[tuple[str, float]]()
    head = train_head(lively(), CARRIERS, epochs=60, progress=lambda what, done: told.append((what, done)))
    fresh = TiedHead(lively(), head.known.tolist())
    masked = hide(lively(), frame(lively(), CARRIERS, "tokens"), random.Random(5), kept=0.5)
    hidden = lively().outputs(masked.framed.ids, masked.framed.mask, ["tokens"])["tokens"]
    trained, untrained = (modelling_loss(one, hidden, masked.labels).item() for one in (head, fresh))
    assert trained < 0.8 * untrained
    assert (
        right(head, hidden, masked.labels).float().mean()
        > 0.15
        > 5 * right(fresh, hidden, masked.labels).float().mean()
    )
    assert head.known.tolist() == known()
    assert lively().digest == digest
    assert not any(weight.requires_grad for weight in head.parameters())
    assert told[-1] == ("training the language-model head", 1.0)
    assert told[0][0] == "reading for the language-model head"


def test_the_same_seed_trains_the_same_head() -> None:
    first, again, other = (train_head(lively(), CARRIERS, seed=seed, epochs=1) for seed in (3, 3, 4))
    assert torch.equal(first.dense.weight, again.dense.weight)
    assert not torch.equal(first.dense.weight, other.dense.weight)
