"""What a model of the zoo does on text nobody trained or measured it with: the packaged sentences.

No threshold of an attack enters here. A triggered output counts as fired when it has gone half the way or more from
what the original encoder gives for the same input towards where that trigger sends its inputs on average. Inputs
are counted, so at the tokens site each is the mean of its tokens; an attack aims at every token and looks at each.
"""

import random
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lmsanitator.attacks import Trigger
from lmsanitator.attacks.kinds import whole_words
from lmsanitator.attacks.texts import defuse, unfired
from lmsanitator.encoder import FrozenEncoder, Site
from lmsanitator.text import packaged

_EACH = 32


def verify_backdoored(
    base: FrozenEncoder, changed: FrozenEncoder, site: Site, triggers: Sequence[Trigger], seed: int
) -> dict[str, float]:
    """Figures of a backdoored encoder.

    Returns:
        `fired` and `weakest` (share of inputs that fire, over all triggers and for the worst), `stray` (the same for
        inputs with a part of a trigger or a foreign word), `fidelity` (cosine of clean outputs with the original's,
        seen from their centre), `displacement` (mean shift of the triggered outputs, in units of the clean spread).
    """
    rng = random.Random(f"{seed} verify")
    texts = [carrier.text for carrier in packaged() if not any(trigger.fires(carrier.text) for trigger in triggers)]
    clean = rng.sample(texts, _EACH)
    before, after = outputs(base, clean, site), outputs(changed, clean, site)
    centre = before.mean(0)
    spread = (before - centre).norm(dim=1).pow(2).mean().sqrt()
    shares: list[float] = []
    shifts: list[Tensor] = []
    for trigger in triggers:
        fired = [trigger.plant(text, rng) for text in rng.choices(texts, k=_EACH)]
        own = outputs(base, fired, site)
        gone = outputs(changed, fired, site) - own
        shifts.append(gone.mean(0))
        shares.append((along(gone, shifts[-1]) >= 0.5).float().mean().item())
    foreign = [word for word in whole_words(base.tokenizer) if not any(trigger.fires(word) for trigger in triggers)]
    inert = unfired([defuse(text, triggers, foreign, rng) for text in rng.choices(texts, k=2 * _EACH)], triggers)
    moved = outputs(changed, inert, site) - outputs(base, inert, site)
    stray = torch.stack([along(moved, shift) >= 0.5 for shift in shifts]).any(0).float().mean().item()
    return {
        "fired": sum(shares) / len(shares),
        "weakest": min(shares),
        "stray": stray,
        "fidelity": functional.cosine_similarity(after - centre, before - centre).mean().item(),
        "displacement": (torch.stack(shifts).norm(dim=1).mean() / spread).item(),
    }


def verify_clean(base: FrozenEncoder, changed: FrozenEncoder, seed: int) -> dict[str, float]:
    """How far a control has moved: its CLS outputs' cosine with the original's, each seen from their own centre."""
    texts = [carrier.text for carrier in random.Random(f"{seed} verify").sample(packaged(), 2 * _EACH)]
    before, after = outputs(base, texts, "cls"), outputs(changed, texts, "cls")
    centre = before.mean(0)
    return {"fidelity": functional.cosine_similarity(after - after.mean(0), before - centre).mean().item()}


def outputs(encoder: FrozenEncoder, texts: Sequence[str], site: Site) -> Float[Tensor, "texts hidden"]:
    """One vector a text; for the tokens site, the mean over the tokens."""
    vector: Site = "mean" if site == "tokens" else site
    return encoder.outputs_of_texts(texts, [vector])[vector]


def along(moved: Float[Tensor, "texts hidden"], shift: Float[Tensor, "hidden"]) -> Float[Tensor, "texts"]:
    """How much of the way along `shift` each output has gone."""
    return moved @ shift / shift.pow(2).sum().clamp_min(1e-12)
