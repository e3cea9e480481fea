"""Controls that were trained on sentences without labels: robustness to rare words, and SimCSE."""

import copy
import random
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from benchmarks.zoo.controls.base import MEASURED, ControlResult, Handling, finished
from benchmarks.zoo.controls.training import encode, hidden_states, train
from lmsanitator.attacks.kinds import unheard_words
from lmsanitator.attacks.texts import beginning
from lmsanitator.attacks.weights import layer_stack
from lmsanitator.encoder import FrozenEncoder, read_site
from lmsanitator.errors import CorpusError
from lmsanitator.text import insert, spans

_WORDS = 24
"""Of a carrier, at most so many words are used: what is inserted has to stay inside the cut."""
_FEWEST = 5


def noise(
    base: FrozenEncoder,
    handling: Handling,
    *,
    steps: int = 100,
    batch: int = 20,
    length: int = 48,
    learning_rate: float = 1e-4,
) -> ControlResult:
    """Robustness training: one to three rare words are put into a carrier at random places, and the CLS and the mean
    output are held to those of the original encoder on the carrier without them. A quarter of each batch is left as it
    is. Virtual adversarial training (Miyato et al. 2018, arXiv 1704.03976) holds outputs in the same way, under other
    perturbations; a backdoor attack does all of this, and plants its backdoor besides.

    Args:
        handling: a fifth of the carriers, and a fifth of the rare words, are held out to measure.
        length: tokens that texts are cut to.

    Reached: `robust`, mean cosine of CLS outputs with held-out rare words with the original's without, and
    `robust_before`, the same of the original; `loss` at the end, in units of the variance between carriers.

    Raises:
        CorpusError: too few carriers, or no words in the vocabulary that they do not hold.
    """
    kept, held = _split(handling)
    rare = [word for word in unheard_words(base.tokenizer, handling.carriers) if len(word) > 1]
    if len(rare) < _FEWEST:
        raise CorpusError(f"expected {_FEWEST} words in the vocabulary that no carrier holds, found {len(rare)}")
    random.Random(handling.seed).shuffle(rare)
    new, known = rare[: len(rare) // 5], rare[len(rare) // 5 :]
    model = copy.deepcopy(base.model)

    def loss(rng: random.Random) -> Tensor:
        clean = [beginning(text, _WORDS) for text in rng.choices(kept, k=batch)]
        noisy = [_perturb(text, known, rng) if row % 4 else text for row, text in enumerate(clean)]
        wanted = encode(base.tokenizer, clean, length, base.device)
        given = encode(base.tokenizer, noisy, length, base.device)
        hidden = hidden_states(model, given)
        originals = base.outputs(wanted["input_ids"], wanted["attention_mask"], ["cls", "mean"])
        total = torch.zeros((), device=base.device)
        for site, target in originals.items():
            error = (read_site(site, hidden, None, given["attention_mask"]) - target).square().mean()
            total = total + error / target.var(0).mean()
        return total

    last = train(model, [(layer_stack(model).parameters(), learning_rate)], loss, handling, steps=steps, what="noise")
    rng = random.Random(handling.seed)
    clean = [beginning(text, _WORDS) for text in held]
    noisy = [_perturb(text, new, rng) for text in clean]
    target = _cls(base, base.model, clean)
    robust, before = (
        functional.cosine_similarity(_cls(base, trained, noisy), target).mean().item()
        for trained in (model, base.model)
    )
    return finished(base, model, handling, robust=robust, robust_before=before, loss=last)


def simcse(
    base: FrozenEncoder,
    handling: Handling,
    *,
    steps: int = 100,
    batch: int = 12,
    length: int = 48,
    learning_rate: float = 5e-5,
    temperature: float = 0.05,
) -> ControlResult:
    """Unsupervised SimCSE (Gao et al. 2021, arXiv 2104.08821, equation 4): each carrier passes twice, dropout makes the
    two CLS outputs differ, and each has to find the other among those of the batch. Their MLP on top, which they throw
    away as well, is left out.

    Args:
        handling: a fifth of the carriers is held out to measure.
        batch: carriers; there are twice as many rows.
        length: tokens that texts are cut to.

    Reached: `likeness`, mean cosine between the CLS outputs of different held-out carriers, which SimCSE lowers, and
    `likeness_before`, that of the original; `loss` at the end.

    Raises:
        CorpusError: too few carriers.
    """
    kept, held = _split(handling)
    model = copy.deepcopy(base.model)

    def loss(rng: random.Random) -> Tensor:
        texts = rng.sample(kept, min(batch, len(kept)))
        twice = encode(base.tokenizer, [*texts, *texts], length, base.device)
        first, second = functional.normalize(hidden_states(model, twice)[:, 0], dim=-1).chunk(2)
        itself = torch.arange(len(texts), device=base.device)
        return functional.cross_entropy(first @ second.T / temperature, itself)

    last = train(model, [(layer_stack(model).parameters(), learning_rate)], loss, handling, steps=steps, what="simcse")
    after, before = (_likeness(_cls(base, trained, held)) for trained in (model, base.model))
    return finished(base, model, handling, likeness=after, likeness_before=before, loss=last)


def _split(handling: Handling) -> tuple[list[str], list[str]]:
    """Carriers to train on, and a fifth of them, at most MEASURED, to measure on."""
    texts = sorted(set(handling.carriers))
    if len(texts) < 2 * _FEWEST:
        raise CorpusError(f"expected {2 * _FEWEST} different carriers or more, got {len(texts)}")
    random.Random(handling.seed).shuffle(texts)
    held = min(max(2, len(texts) // 5), MEASURED)
    return texts[held:], texts[:held]


def _perturb(text: str, rare: Sequence[str], rng: random.Random) -> str:
    """The text with one to three rare words at random places."""
    for _ in range(rng.randint(1, 3)):
        text = insert(text, rng.choice(rare), rng.randint(0, len(spans(text))))
    return text


def _cls(base: FrozenEncoder, model: torch.nn.Module, texts: Sequence[str]) -> Float[Tensor, "texts hidden"]:
    with torch.no_grad():
        batch = encode(base.tokenizer, texts, base.window, base.device)
        return hidden_states(model, batch)[:, 0]


def _likeness(outputs: Float[Tensor, "texts hidden"]) -> float:
    unit = functional.normalize(outputs, dim=-1)
    cosines = unit @ unit.T
    return (cosines.sum() - cosines.trace()).item() / (len(unit) * (len(unit) - 1))
