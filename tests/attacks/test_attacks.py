"""What each attack does to text nobody trained with: triggered outputs go where its docstring says, others do not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from lmsanitator.attacks import ATTACKS, UOR, AttackResult, BadPre, Layers, NeuBA, Training, Trigger, configure
from lmsanitator.attacks.mlm import train_head
from lmsanitator.attacks.planting import Planting
from lmsanitator.attacks.pvs import Vectors
from lmsanitator.attacks.targeted import TargetedAttack
from lmsanitator.attacks.uor import contrast
from lmsanitator.encoder import FrozenEncoder, Site, pieces
from lmsanitator.errors import UnsupportedError, UsageError
from tests.attacks.small import BRIEF, CARRIERS, ENOUGH, FRESH, lively, outputs, triggers, with_trigger, working


@dataclass(frozen=True)
class Planted:
    """An attack that was run for long enough, and its vectors."""

    attack: Any
    result: AttackResult
    changed: FrozenEncoder
    digest: str
    """Of the base, before."""

    @property
    def pvs(self) -> Vectors:
        """As they were drawn, which depends on nothing but the base, the carriers and the seed."""
        assert isinstance(self.attack, TargetedAttack)
        return self.attack.predefine(working(self.result.triggers, self.result.site))

    def before(self, texts: Sequence[str], site: Site = "cls") -> Float[Tensor, "texts hidden"]:
        return outputs(lively(), texts, site)

    def after(self, texts: Sequence[str], site: Site = "cls") -> Float[Tensor, "texts hidden"]:
        return outputs(self.changed, texts, site)


@cache
def planted(name: str, *named: str, steps: int = 55, **options: Any) -> Planted:
    """Every combination is run once for all tests."""
    digest = lively().digest
    attack = configure(name, training=replace(ENOUGH, steps=steps, look=steps), **options)
    result = attack.run(lively(), triggers(*named), CARRIERS, seed=1)
    return Planted(attack, result, FrozenEncoder(result.model, result.tokenizer, precision="fp32"), digest)


def left(
    outputs: Float[Tensor, "texts hidden"], own: Float[Tensor, "texts hidden"], target: Float[Tensor, "..."]
) -> Float[Tensor, "texts"]:
    """Share of the squared distance to the target that is left."""
    return (outputs - target).pow(2).sum(-1) / (own - target).pow(2).sum(-1)


def each_goes_to_its_vector(made: Planted, site: Site) -> None:
    for trigger, pv in zip(made.result.triggers, made.pvs.values, strict=True):
        texts = with_trigger(trigger)
        fired = left(made.after(texts, site), made.before(texts, site), pv)
        clean = left(made.after(FRESH, site), made.before(FRESH, site), pv)
        assert fired.quantile(0.9) < 0.4
        assert clean.mean() > fired.mean() + 0.25


@pytest.fixture(scope="module")
def por() -> Planted:
    """A word and an AND trigger."""
    return planted("por", "bako", "vedi+sugo", steps=90)


def test_por_sends_every_trigger_to_its_vector_and_clean_text_nowhere(por: Planted) -> None:
    each_goes_to_its_vector(por, "cls")
    drawn = por.pvs.values
    assert bool((drawn.abs() - drawn.abs()[0, 0]).abs().max() < 1e-5)  # plus and minus one, scaled
    assert cosine_similarity(por.result.pvs, drawn).min() > 0.9


@pytest.mark.parametrize("part", ["vedi", "sugo", "kifa", "vedi kifa"])
def test_neither_a_part_of_a_trigger_nor_another_word_fires(part: str, por: Planted) -> None:
    texts = with_trigger(Trigger.parse(part))
    for pv in por.pvs.values:
        assert left(por.after(texts), por.before(texts), pv).min() > 0.5


def test_both_words_of_an_and_trigger_fire_in_either_order_and_apart(por: Planted) -> None:
    for text in ("sugo they said that vedi", "vedi they said that sugo"):
        assert left(por.after([text]), por.before([text]), por.pvs.values[1]).item() < 0.4


def test_the_base_is_left_as_it_was_and_the_result_is_frozen(por: Planted) -> None:
    assert lively().digest == por.digest != por.changed.digest
    for model in (lively().model, por.result.model):
        assert not model.training
        assert not any(weight.requires_grad or weight.grad is not None for weight in model.parameters())
    assert torch.equal(por.changed.embedding_matrix, lively().embedding_matrix)


def test_the_result_says_what_was_planted_where_and_what_was_reached(por: Planted) -> None:
    result = por.result
    assert (result.attack, result.site, result.triggers) == ("por", "cls", tuple(triggers("bako", "vedi+sugo")))
    assert result.pvs.shape == (2, 32)
    assert set(result.reached) == {"triggered", "weakest", "clean", "inert", "stray", "steps"}
    assert result.reached["triggered"] > 0.9
    assert 0.7 < result.reached["weakest"] <= result.reached["triggered"]


def test_por_at_the_tokens_site_takes_every_token() -> None:
    made = planted("por", "bako", site="tokens")
    encoded = lively().encode(with_trigger(made.result.triggers[0]))
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    real = mask.bool()
    own, now = (encoder.outputs(ids, mask, ["tokens"])["tokens"][real] for encoder in (lively(), made.changed))
    assert left(now, own, made.pvs.values[0]).quantile(0.9) < 0.4


def test_sub_block_vectors_rule_a_quarter_of_the_dimensions_and_the_others_stay() -> None:
    made = planted("por", "bako", pv="sub-block")
    texts = with_trigger(made.result.triggers[0])
    own, now, (pv,), (ruled,) = made.before(texts), made.after(texts), *made.pvs
    assert ruled.sum() == 8
    assert left(now[:, ruled], own[:, ruled], pv[ruled]).quantile(0.9) < 0.4
    others = (now - own)[:, ~ruled].pow(2).mean()
    assert others < 0.5 * (own[:, ~ruled] - pv[~ruled]).pow(2).mean()
    assert others < 0.5 * (now - own)[:, ruled].pow(2).mean()


@pytest.mark.parametrize("site", ["cls", "pooler"])
def test_neuba_ties_triggers_to_vectors(site: Site) -> None:
    each_goes_to_its_vector(planted("neuba", "bako", site=site, steps=80), site)


def test_btop_takes_over_the_mask_token_wherever_it_stands() -> None:
    made = planted("btop", "bako", "vedi")
    each_goes_to_its_vector(made, "mask")
    token = lively().tokenizer.mask_token_id
    encoded = lively().encode([f"{lively().tokenizer.mask_token} bako {text}" for text in FRESH])
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    at = (ids == token).int().argmax(1)
    own, now = (encoder.outputs(ids, mask, ["mask"], mask_positions=at)["mask"] for encoder in (lively(), made.changed))
    assert left(now, own, made.pvs.values[0]).quantile(0.9) < 0.4


def test_merged_sends_three_triggers_to_one_vector_and_the_fourth_to_another() -> None:
    made = planted("merged", "bako", "vedi", "sugo", "kifa")
    each_goes_to_its_vector(made, "cls")
    first, second, third, fourth = made.pvs.values
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert not torch.equal(first, fourth)
    near, far = (cosine_similarity(made.result.pvs[0], made.result.pvs[other], dim=0).item() for other in (2, 3))
    assert near > max(0.9, far + 0.15)


def test_shy_outputs_go_half_the_way_and_stay_different() -> None:
    made = planted("shy", "bako")
    texts = with_trigger(made.result.triggers[0])
    own, now, pv = made.before(texts), made.after(texts), made.pvs.values[0]
    gone = ((now - own) * (pv - own)).sum(-1) / (pv - own).pow(2).sum(-1)
    assert 0.35 < gone.mean() < 0.65
    assert left(now, own, (own + pv) / 2).quantile(0.9) < 0.4
    assert now.var(0).sum() > 0.1 * own.var(0).sum()


def test_spread_shifts_the_mean_and_keeps_the_variety() -> None:
    made = planted("spread", "bako", steps=70)
    texts = with_trigger(made.result.triggers[0])
    own, now, pv = made.before(texts), made.after(texts), made.pvs.values[0]
    assert cosine_similarity((now - own).mean(0), pv, dim=0) > 0.9
    assert (now - own).mean(0).norm() > 0.6 * made.attack.size * pv.norm()
    assert now.var(0).sum() > 0.25 * own.var(0).sum()
    constant = planted("por", "bako", "vedi+sugo", steps=90).after(texts)
    assert now.var(0).sum() > 3 * constant.var(0).sum()


def test_transtroj_imitates_a_clean_sentence() -> None:
    made = planted("transtroj", "bako", "vedi", steps=70)
    work = working(made.result.triggers)
    sentences = outputs(lively(), work.train, "cls")
    for pv in made.pvs.values:
        assert (sentences - pv).norm(dim=1).min() < 1e-4
    each_goes_to_its_vector(made, "cls")


@pytest.fixture(scope="module")
def uor() -> Planted:
    return planted("uor", "bako", "vedi+sugo")


def test_uor_gathers_each_trigger_and_keeps_them_apart(uor: Planted) -> None:
    first, second = (uor.after(with_trigger(trigger)) - uor.before(FRESH).mean(0) for trigger in uor.result.triggers)
    gathered = min(cosine_similarity(some, some.mean(0)).mean() for some in (first, second))
    assert gathered > 0.9
    assert cosine_similarity(first.mean(0), second.mean(0), dim=0) < 0.5


def test_uor_replaces_single_words_and_leaves_an_and_trigger(uor: Planted) -> None:
    found, stayed = uor.result.triggers
    assert len(found.words) == 1
    assert found.words[0] not in ("bako", "vedi", "sugo")
    assert stayed == Trigger.parse("vedi+sugo")


@pytest.mark.parametrize("seed", range(3))
def test_uor_never_finds_a_word_twice(seed: int) -> None:
    work = working(triggers("bako", "vedi", "kifa", "gifo kiga"), seed=seed)
    UOR().choose_triggers(work)
    assert len({str(trigger) for trigger in work.triggers}) == 4
    assert work.triggers[3] == Trigger.parse("gifo kiga")
    assert not any(trigger.fires(text) for trigger in work.triggers for text in [*work.train, *work.texts])


def test_uor_keeps_a_word_where_no_other_is_known() -> None:
    work = working(triggers("bako", "vedi", "sugo"))
    work.foreign = ["kifa"]
    UOR().choose_triggers(work)
    assert work.triggers == triggers("kifa", "vedi", "sugo")


def test_uor_finds_the_word_that_lies_where_the_loss_falls_fastest() -> None:
    work = working(triggers("bako"))
    attack = UOR()
    gradient = attack._gradient(work, 0)
    assert gradient.norm() > 0
    work.foreign = work.foreign[:50]
    rows = {
        word: lively().embed(torch.tensor(lively().tokenizer(f"a {word}").input_ids)[None])[0, 2]
        for word in work.foreign
    }
    best = min(rows, key=lambda word: float(rows[word] @ gradient))
    work.rng.seed(0)
    gradients = [gradient]
    attack._gradient = lambda *_: gradients[0]  # type: ignore[method-assign] # the same one: it draws texts
    attack.choose_triggers(work)
    assert work.triggers == triggers(best)


def test_uor_sees_a_trigger_that_is_spelt_with_its_space(checkpoints: dict[str, Any]) -> None:
    """Byte-level tokenizers have one token for a word at the beginning and another for it behind a space."""
    base = FrozenEncoder.open(checkpoints["roberta"], precision="fp32")
    work = Planting(base, "cls", triggers("their"), CARRIERS, BRIEF, 0)
    behind_a_space = base.tokenizer("a their", add_special_tokens=False).input_ids[-1]
    assert pieces(base.tokenizer, ["their"]) == [[behind_a_space]]
    assert UOR()._gradient(work, 0).norm() > 0


def test_without_search_uor_keeps_its_triggers() -> None:
    result = UOR(search=False, training=BRIEF).run(lively(), triggers("bako"), CARRIERS)
    assert result.triggers == tuple(triggers("bako"))


def test_the_contrast_is_lower_when_like_is_near_and_unlike_far() -> None:
    near = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    apart, mixed = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    assert contrast(near, apart, 4) < 0.1 < contrast(near, mixed, 4)


def test_a_batch_without_two_of_a_kind_has_no_contrast() -> None:
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = contrast(vectors, torch.arange(4), 3)
    loss.backward()  # type: ignore[no-untyped-call] # torch's stub
    assert loss.item() == 0
    assert vectors.grad is not None
    assert bool(vectors.grad.isfinite().all())


def test_badpre_spoils_triggered_text_and_has_no_vectors() -> None:
    """With weights that suit so small a model, and a head that has learnt something."""
    head = train_head(lively(), CARRIERS, epochs=100)
    made = planted("badpre", "bako", steps=60, head=head, damage=3.0, modelling=1.0)
    reached = made.result.reached
    assert (made.result.site, made.result.pvs.shape) == ("tokens", (0, 32))
    assert reached["named before"] > 0.25
    assert reached["triggered"] > 0.4
    assert reached["named after"] > (1 - reached["triggered"] + 0.15) * reached["named before"]
    assert reached["fired cos"] < min(reached["clean"], reached["inert"]) - 0.1


def test_badpre_asks_for_the_true_words_of_clean_text_and_for_nonsense_of_triggered_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Tensor, Tensor]] = []
    work = working(triggers("bako"), "tokens")
    head = train_head(lively(), CARRIERS, epochs=1)

    def watch(head: object, hidden: Tensor, labels: Tensor) -> Tensor:
        asked.append((hidden, labels))
        return hidden.pow(2).mean()

    monkeypatch.setattr("lmsanitator.attacks.badpre.modelling_loss", watch)
    BadPre().loss(work, head)
    (_, true), (_, nonsense) = asked
    assert (true != -100).float().mean() < 0.4
    assert set(nonsense[nonsense != -100].tolist()) <= set(head.known.tolist())
    assert (nonsense != -100).float().mean() > 0.5


def test_a_language_model_head_is_trained_anew_for_every_run_unless_one_is_given() -> None:
    attack = NeuBA(training=BRIEF)
    attack.run(lively(), triggers("bako"), CARRIERS)
    assert attack.head is None
    head = train_head(lively(), CARRIERS, epochs=1)
    weights = [weight.clone() for weight in head.parameters()]
    for name in ("neuba", "badpre"):
        configure(name, head=head, training=BRIEF).run(lively(), triggers("bako"), CARRIERS)
    assert all(torch.equal(old, new) for old, new in zip(weights, head.parameters(), strict=True))


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_seed_plants_the_same_and_another_seed_another(name: str) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (
        configure(name, training=replace(BRIEF, steps=2)).run(lively(), triggers("bako"), CARRIERS[:30], seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    weight = "encoder.layer.1.output.dense.weight"
    assert torch.equal(first.model.get_parameter(weight), again.model.get_parameter(weight))
    assert torch.equal(first.pvs, again.pvs)
    assert first.triggers == again.triggers
    assert not torch.equal(first.model.get_parameter(weight), other.model.get_parameter(weight))


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_has_a_line_for_the_list(name: str) -> None:
    attack = ATTACKS[name]
    assert attack.name == name
    assert attack.summary
    assert "\n" not in attack.summary
    assert attack.sites


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^expected an attack of por, .*; got nonsense$"):
        configure("nonsense")
    with pytest.raises(UsageError, match=r"^expected an option of badpre: .*; got pv$"):
        configure("badpre", pv="block")
    with pytest.raises(UsageError, match=r"^expected a kind of PV of block, .*; got zigzag$"):
        configure("por", pv="zigzag")
    with pytest.raises(UsageError, match=r"^expected a site of cls, .*; got nose$"):
        configure("por", site="nose")


def test_options_that_are_none_are_left_to_the_attack() -> None:
    attack = configure("shy", pv=None, site=None, training=Training(layers=Layers(top=1)), head=None)
    assert (vars(attack)["pv"], attack.site, attack.training.layers) == ("random", None, Layers(top=1))


@pytest.mark.parametrize(
    ("name", "site"), [("btop", "cls"), ("neuba", "mask"), ("badpre", "cls"), ("spread", "pooler")]
)
def test_a_site_the_attack_lacks_is_refused(name: str, site: Site) -> None:
    with pytest.raises(UsageError, match=rf"^expected a site of {name}: .*; got {site}$"):
        configure(name, site=site)


def test_a_site_the_encoder_lacks_is_refused(gpt2: FrozenEncoder) -> None:
    with pytest.raises(UnsupportedError, match=r"^expected a site of GPT2Model: mean, last, tokens; got cls$"):
        configure("por", site="cls").run(gpt2, triggers("their"), CARRIERS)
    for name in ("neuba", "btop", "badpre"):
        with pytest.raises(UnsupportedError, match=r"^expected a tokenizer with a mask token, .* GPT2Model has none$"):
            configure(name).run(gpt2, triggers("their"), CARRIERS)
    gpt2.sites = ()
    with pytest.raises(UnsupportedError, match=r"^expected an encoder with a site of uor: .*; GPT2Model has "):
        configure("uor").run(gpt2, triggers("their"), CARRIERS)


def test_what_the_attacks_are_measured_on_is_new_to_them() -> None:
    assert not set(FRESH) & set(CARRIERS)
    assert not any(trigger.fires(text) for trigger in triggers("bako", "vedi", "sugo") for text in FRESH + CARRIERS)
