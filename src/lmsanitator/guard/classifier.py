"""A tuned classifier on a frozen encoder, read in two places at once: its logits and its encoder's outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel, PeftType
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.encoder import FrozenEncoder, Site, read_site
from lmsanitator.errors import TuningError

_PREPENDED = (PeftType.PROMPT_TUNING, PeftType.P_TUNING)


@dataclass(frozen=True)
class Reading:
    """One prompted pass."""

    logits: Float[Tensor, "batch labels"]
    outputs: dict[Site, Float[Tensor, "batch hidden"]]


class TunedClassifier:
    """A transformers or PEFT sequence classifier and the frozen encoder inside it.

    Args:
        model: the classifier; it is set to eval mode.
        tokenizer: its tokenizer.

    Raises:
        TuningError: the model has no labels or no encoder of its own.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model = model.eval()
        classifier = model.get_base_model() if isinstance(model, PeftModel) else model
        backbone = getattr(classifier, "base_model", None)
        labels = getattr(classifier.config, "id2label", None)
        if not labels or backbone is None or backbone is classifier:
            raise TuningError(f"expected a sequence classifier with labels, got {type(classifier).__name__}")
        self.labels = tuple(str(labels[index]) for index in range(len(labels)))
        self.backbone = backbone
        self.encoder = FrozenEncoder(backbone, tokenizer, source="classifier", precision="fp32")
        self.shift, self.virtual = 0, 0
        if isinstance(model, PeftModel):
            adapter = model.active_peft_config
            self.virtual = int(getattr(adapter, "num_virtual_tokens", 0) or 0)
            if adapter.peft_type in _PREPENDED:
                self.shift = self.virtual  # PEFT puts virtual tokens before [CLS], which then sits at index n

    def read(self, texts: Sequence[str], sites: Sequence[Site], *, batch_size: int = 64) -> Reading:
        """Logits, and the encoder's outputs at `sites` from the very same pass (the prompted one)."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        logits: list[Tensor] = []
        outputs: dict[Site, list[Tensor]] = {site: [] for site in sites}
        for start in range(0, len(order), batch_size):
            batch = self.encoder.tokenizer(
                [texts[index] for index in order[start : start + batch_size]],
                padding=True,
                truncation=True,
                max_length=self.encoder.window - self.virtual,
                return_tensors="pt",
            )
            inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
            seen: dict[str, Any] = {}
            hook = self.backbone.register_forward_hook(lambda module, args, out, seen=seen: seen.update(out=out))
            try:
                with torch.no_grad():
                    logits.append(self.model(**inputs).logits.float())
            finally:
                hook.remove()
            hidden = seen["out"].last_hidden_state[:, self.shift :].float()
            pooled = seen["out"].get("pooler_output")
            for site in sites:
                outputs[site].append(read_site(site, hidden, pooled, batch["attention_mask"]))
        back = torch.tensor(sorted(range(len(order)), key=order.__getitem__), dtype=torch.long)
        return Reading(torch.cat(logits)[back], {site: torch.cat(parts)[back] for site, parts in outputs.items()})
