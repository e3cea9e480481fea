"""A task head at a site of one's choice: a linear layer on one output of the frozen encoder.

The paper's attacks differ in the site they overwrite, and a backdoor bites only where the task head reads. At `mask`
the head is a verbalizer in the manner of P-tuning: the label's score comes from the output at a [MASK] appended to the
text. Encoders without a language-model head get a soft verbalizer, one vector a label (WARP, Hambardzumyan et al. 2021,
arXiv 2101.00121), which starts out as the embedding of the label's name where it has one.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Linear, functional
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from lmsanitator.encoder import FrozenEncoder, read_site
from lmsanitator.tune.methods import VectorSite

_INITIAL_SCALE = 0.02


class SiteClassifier(PreTrainedModel):  # type: ignore[misc,unused-ignore]
    """An encoder and a linear head on its output at one site.

    With `prompt` and `p-tuning` PEFT puts virtual tokens before [CLS]. The head reads the text's own positions only:
    [CLS] itself, the mean over the text, and so on.

    Args:
        encoder: without a head of its own; its config has the labels' names.
        site: where the head reads.
        labels: how many.
        shift: virtual tokens before the text when PEFT hands over embeddings.
        behind: special tokens behind the text, before which the mask token stands.
    """

    base_model_prefix = "encoder"
    config_class = PreTrainedConfig
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True  # whatever the encoder inside was built with

    def __init__(self, encoder: PreTrainedModel, site: VectorSite, *, labels: int, shift: int, behind: int) -> None:
        super().__init__(encoder.config)
        self.encoder = encoder
        self.classifier = Linear(encoder.config.hidden_size, labels)
        torch.nn.init.normal_(self.classifier.weight, std=_INITIAL_SCALE)
        torch.nn.init.zeros_(self.classifier.bias)
        self.site: VectorSite = site
        self.shift = shift
        self.behind = behind

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"] | None = None,
        *,
        attention_mask: Tensor,
        inputs_embeds: Float[Tensor, "batch tokens hidden"] | None = None,
        past_key_values: Any = None,
        token_type_ids: Int[Tensor, "batch tokens"] | None = None,
        labels: Int[Tensor, "batch"] | None = None,
        **options: Any,
    ) -> SequenceClassifierOutput:
        """The logits of a batch that is padded on the right.

        Args:
            attention_mask: (batch, virtual tokens + tokens); PEFT makes it a float.
            past_key_values: a prefix. PEFT looks for this name in the signature.
            options: what PEFT hands every model; only what is set is passed on to the encoder.
        """
        options |= {"past_key_values": past_key_values, "token_type_ids": token_type_ids}
        given = {name: value for name, value in options.items() if value is not None and name != "return_dict"}
        source = {"inputs_embeds": inputs_embeds} if input_ids is None else {"input_ids": input_ids}
        out = self.encoder(**source, attention_mask=attention_mask, **given)
        hidden = out.last_hidden_state[:, self.shift if input_ids is None else 0 :]
        mask = attention_mask[:, -hidden.shape[1] :].long()  # without the virtual tokens, where it counts them
        pooled = pool(self.encoder, hidden) if self.site == "pooler" else None
        logits = self.classifier(read_site(self.site, hidden, pooled, mask, self.mask_positions(mask)))
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def mask_positions(self, mask: Int[Tensor, "batch tokens"]) -> Int[Tensor, "batch"]:
        """Where the mask token stands that `make_inputs` appends: found by the layout, as embeddings have no ids."""
        return (mask.sum(1) - self.behind - 1).clamp_min(0)


def pool(encoder: PreTrainedModel, hidden: Float[Tensor, "batch tokens hidden"]) -> Float[Tensor, "batch hidden"]:
    """The pooler's output for a text that begins at the first position; the encoder itself, under a prompt, would
    pool a virtual token."""
    pooler = encoder.get_submodule("pooler")
    if isinstance(pooler, Linear):  # ALBERT and BigBird keep the rest in their forward
        return torch.tanh(pooler(hidden[:, 0]))
    pooled: Tensor = pooler(hidden)
    return pooled


def site_classifier(
    encoder: FrozenEncoder, config: PreTrainedConfig, labels: Sequence[str], site: VectorSite, shift: int
) -> SiteClassifier:
    """A SiteClassifier that shares the encoder's weights, its head initialised."""
    inner = AutoModel.from_config(config, dtype=torch.float32)
    inner.load_state_dict(encoder.model.state_dict(), assign=True)
    model = SiteClassifier(inner, site, labels=len(labels), shift=shift, behind=len(encoder.frame[1]))
    vectors = label_vectors(encoder, labels) if site == "mask" else None
    if vectors is not None:
        with torch.no_grad():
            model.classifier.weight.copy_(vectors)
    return model


def label_vectors(encoder: FrozenEncoder, labels: Sequence[str]) -> Float[Tensor, "labels hidden"] | None:
    """Where a verbalizer starts: the embeddings of the label names, centred (what all labels share tells none of them
    apart) and of length 1. None where names are no words, or where embeddings have another size than outputs."""
    tokenizer = encoder.tokenizer
    pieces = [tokenizer(f" {label}", add_special_tokens=False).input_ids for label in labels]  # BPE: as within a text
    words = all(label.replace(" ", "").isalpha() for label in labels)
    if not words or any(not ids or tokenizer.unk_token_id in ids for ids in pieces):
        return None
    vectors = torch.stack([encoder.embed(torch.tensor([ids]))[0].mean(0) for ids in pieces]).float()
    if vectors.shape[1] != encoder.hidden_size:
        return None
    return functional.normalize(vectors - vectors.mean(0), dim=-1)
