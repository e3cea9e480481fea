"""A tuned classifier on a frozen encoder. One of texts is read in two places at once: its logits and its encoder's
outputs."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel, PeftType
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmsanitator.encoder import FrozenEncoder, Site, one_vector, read_site
from lmsanitator.errors import CorpusError, TuningError, UnsupportedError
from lmsanitator.text import Text, sides
from lmsanitator.tune import SiteClassifier, make_inputs
from lmsanitator.tune.adapter import classifier_of, without_adapter
from lmsanitator.tune.head import pool
from lmsanitator.tune.inputs import batches_by_length, characters, in_order
from lmsanitator.tune.tagging import check_bio

_PREPENDED = (PeftType.PROMPT_TUNING, PeftType.P_TUNING)
_NO_LIMIT = 10**9
_OF_TOKENS = "ForTokenClassification"


@dataclass(frozen=True)
class Reading:
    """One prompted pass."""

    logits: Float[Tensor, "batch labels"]
    outputs: dict[Site, Float[Tensor, "batch hidden"]]


class Tuned:
    """A transformers or PEFT classifier and the frozen encoder inside it.

    `encoder` is the encoder as it was scanned, for the raw pass: without virtual tokens, and without the weights of
    LoRA or any other adapter that changes the encoder itself (`moved`). Without an adapter the prompted pass and the
    raw one are the same (`one_pass`).

    Args:
        model: the classifier; it is set to eval mode.
        tokenizer: its tokenizer.

    Raises:
        TuningError: the model has no labels or no encoder of its own, or the tokenizer cuts words at random.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerFast) -> None:
        if getattr(tokenizer.backend_tokenizer.model, "dropout", None):  # one pass could see a trigger, another not
            raise TuningError("expected the same tokens of a text each time, the tokenizer has dropout")
        self.model = model.eval()
        classifier = classifier_of(model) if isinstance(model, PeftModel) else model
        backbone = getattr(classifier, "base_model", None)
        labels = getattr(classifier.config, "id2label", None)
        if not labels or backbone is None or backbone is classifier:
            raise TuningError(f"expected a sequence classifier with labels, got {type(classifier).__name__}")
        self.of_words = type(classifier).__name__.endswith(_OF_TOKENS)
        self.labels = tuple(str(labels[index]) for index in range(len(labels)))
        self.classifier = classifier
        self.backbone = backbone
        self.has_mask = isinstance(classifier, SiteClassifier) and classifier.site == "mask"
        self.moved, self.shift, virtual = False, 0, 0
        self.one_pass = not isinstance(model, PeftModel)
        if isinstance(model, PeftModel):
            adapter = model.active_peft_config
            self.moved = not adapter.is_prompt_learning
            virtual = int(getattr(adapter, "num_virtual_tokens", 0) or 0)
            if adapter.peft_type in _PREPENDED:
                self.shift = virtual  # PEFT puts virtual tokens before [CLS], which then sits at index n
        base = without_adapter(backbone) if self.moved else backbone
        limited, self.longest = _limits(base, tokenizer, virtual, masked=self.has_mask)
        self.encoder = FrozenEncoder(base, limited, source="classifier", precision="fp32", device=str(base.device))

    def read(self, texts: Sequence[Text], sites: Sequence[Site], *, batch_size: int = 64) -> Reading:
        """The prompted pass.

        Raises:
            UnsupportedError: it is not read of a model of this kind.
        """
        raise UnsupportedError(f"expected the raw pass of a {type(self.classifier).__name__}, got the prompted one")


class TunedClassifier(Tuned):
    """One that gives a text, or a pair of texts, one label.

    Raises:
        TuningError: as `Tuned`, or the model labels words.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(model, tokenizer)
        if self.of_words:
            raise TuningError(f"expected a classifier of texts, got {type(self.classifier).__name__} (TaggingGuard)")

    def unreadable(self, text: Text) -> str | None:
        """Why the classifier cannot read a text as the encoder does, if so: a decoder has no token to read in an empty
        one, and its own head takes the last token that is no padding, wherever a text writes that out."""
        if self.encoder.frame[0] and "cls" in self.encoder.sites:
            return None
        tokenizer = self.encoder.tokenizer
        ids = tokenizer(*sides(text), truncation=True, max_length=self.longest).input_ids
        if not ids:
            return "there is nothing to read"
        padded = not isinstance(self.classifier, SiteClassifier) and tokenizer.pad_token_id in ids
        return f"it holds the padding token {tokenizer.pad_token}" if padded else None

    def reach(self, text: Text, added: str = "") -> tuple[int, ...]:
        """How many characters of a text, or of each text of a pair, are read: what lies behind is cut off.

        Args:
            added: what is going to be put in, and takes its room.
        """
        tokenizer, both = self.encoder.tokenizer, sides(text)
        taken = len(tokenizer(added, add_special_tokens=False).input_ids)
        least = tokenizer.num_special_tokens_to_add(pair=len(both) > 1) + 1
        longest = max(least, self.longest - self.has_mask - taken)
        row = tokenizer(*both, truncation=True, max_length=longest, return_offsets_mapping=True)
        ends = [0] * len(both)
        for side, (_, end) in zip(row.sequence_ids(), row["offset_mapping"], strict=True):
            if side is not None:
                ends[side] = max(ends[side], end)
        return tuple(ends)

    def read(self, texts: Sequence[Text], sites: Sequence[Site], *, batch_size: int = 64) -> Reading:
        """Logits, and the encoder's outputs at `sites` from the very same pass (the prompted one)."""
        batches = batches_by_length([characters(text) for text in texts], batch_size)
        logits: list[Tensor] = []
        outputs: dict[Site, list[Tensor]] = {site: [] for site in sites}
        for batch in batches:
            rows = [texts[index] for index in batch]
            inputs = make_inputs(self.classifier, self.encoder.tokenizer, rows, self.longest)
            seen: dict[str, Any] = {}
            hook = self.backbone.register_forward_hook(lambda module, args, out, seen=seen: seen.update(out=out))
            try:
                with torch.no_grad():
                    there = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
                    logits.append(self.model(**there).logits.float().cpu())
            finally:
                hook.remove()
            hidden = seen["out"].last_hidden_state[:, self.shift :].float()
            pooled = seen["out"].get("pooler_output")
            if self.shift and "pooler" in sites:
                pooled = pool(self.backbone, hidden)
            hidden, pooled = hidden.cpu(), None if pooled is None else pooled.cpu()
            mask = inputs["attention_mask"]
            positions = self.classifier.mask_positions(mask) if isinstance(self.classifier, SiteClassifier) else None
            for site in sites:
                outputs[site].append(read_site(one_vector(site), hidden, pooled, mask, positions))
        read = {site: in_order(torch.cat(parts), batches) for site, parts in outputs.items()}
        return Reading(in_order(torch.cat(logits), batches), read)


class TunedTagger(Tuned):
    """One that gives every word a label.

    Raises:
        TuningError: as `Tuned`, or the model does not label words, or not in BIO.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(model, tokenizer)
        if not self.of_words:
            raise TuningError(f"expected a token classifier, got {type(self.classifier).__name__} (Guard)")
        try:
            check_bio(self.labels)
        except CorpusError as error:
            raise TuningError(str(error)) from error


def _limits(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, virtual: int, *, masked: bool
) -> tuple[PreTrainedTokenizerFast, int]:
    """The tokenizer of the raw pass, and how many tokens of an input the classifier reads.

    The tokenizer's limit may account for the virtual tokens already (`limited_tokenizer`), that of the position
    embeddings never does. The raw pass keeps a place for a mask token, needed or not: it gets one token more for that
    or, where no position is left, a classifier without a mask reads one less. It must read all that the classifier
    reads: a trigger in a place that only the classifier sees would decide the label and go unseen. Nor does it read
    more of a single text, or what stands there would decide what is seen and not the label.
    """
    raw = copy.deepcopy(tokenizer)
    raw.padding_side = "right"  # where outputs are read assumes that
    opened = FrozenEncoder(encoder, raw, device=str(encoder.device))
    limit = opened.window
    raw.model_max_length = _NO_LIMIT
    positions = opened.window
    raw.model_max_length = min(limit + 1, positions)
    longest = min(limit, positions - virtual, raw.model_max_length - (not masked))
    raw.model_max_length = longest + (not masked)
    return raw, longest
