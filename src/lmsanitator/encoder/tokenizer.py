"""Open a stranger's tokenizer without letting it run away."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from lmsanitator.encoder.files import check_bytes, parse_object, read_json_object
from lmsanitator.encoder.framing import check_frame, name_first
from lmsanitator.encoder.limits import MAX_FRAME, MAX_GROWTH, MAX_TEXT_BYTES
from lmsanitator.encoder.quiet import refusing
from lmsanitator.encoder.steps import check_steps, holds_table
from lmsanitator.errors import CheckpointError

_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_TEXTS = (".json", ".txt", ".model", ".jinja")
_PROBE = "a ☃"  # a letter, and a character that few vocabularies hold
_PLANES, _STRETCH = 0x20000, 64


def load_tokenizer(folder: Path, config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer (offsets are needed to map words to tokens)."""
    check_tokenizer_files(folder)
    with refusing("a tokenizer that works"):
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False, local_files_only=True)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(f"expected a fast tokenizer, got {type(tokenizer).__name__}")
    with refusing("a tokenizer that works"):
        raw = parse_object(tokenizer.backend_tokenizer.to_str(), "the tokenizer")
        check_steps(raw)
        if holds_table(raw):
            check_characters(tokenizer)
        pieces = tokenizer(_PROBE).input_ids
    if not pieces:
        raise CheckpointError(f"expected a tokenizer that makes tokens of text, it makes none of {_PROBE!r}")
    if len(pieces) > MAX_FRAME:
        raise CheckpointError(
            f"expected at most {MAX_FRAME} tokens for {_PROBE!r}, the tokenizer makes {len(pieces):,}"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise CheckpointError("expected a padding, end or unknown token in the tokenizer, found none")
    tokenizer.padding_side = "right"
    with refusing("a tokenizer that works"):
        frame = check_frame(tokenizer)
        if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            name_first(tokenizer, frame)
    return tokenizer


def check_tokenizer_files(folder: Path) -> None:
    """Look through a tokenizer's files before transformers does."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise CheckpointError(f"expected a tokenizer in {folder}, found none of {', '.join(_TOKENIZER_FILES)}")
    for path in (*folder.iterdir(), *folder.glob("additional_chat_templates/*")):
        if path.suffix in _TEXTS and path.is_file():
            check_bytes(path, MAX_TEXT_BYTES)
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (folder / name).is_file():
            check_settings(read_json_object(folder / name, MAX_TEXT_BYTES), name)
    if (folder / "tokenizer.json").is_file():
        check_steps(read_json_object(folder / "tokenizer.json", MAX_TEXT_BYTES))
    elif (folder / "tekken.json").is_file():  # carries a regular expression, and transformers would prefer it
        raise CheckpointError("expected tokenizer.json, found tekken.json without it")


def check_settings(raw: dict[str, Any], name: str) -> None:
    """Refuse settings that lead to a tokenizer file other than the one that was checked, or to an odd window."""
    others = raw.get("fast_tokenizer_files") or []
    if others != [] and others != ["tokenizer.json"]:
        raise CheckpointError(f"expected tokenizer.json as the only tokenizer, {name} names {others!r:.80}")
    window = raw.get("model_max_length")
    if window is not None and (isinstance(window, bool) or not isinstance(window, int | float) or window < 1):
        raise CheckpointError(f"expected a model_max_length of 1 or more in {name}, got {window!r:.80}")


def check_characters(tokenizer: PreTrainedTokenizerFast) -> None:
    """Send every character through the normalizer: a table in it may point outside itself, or swell one character."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    for stretch in _stretches():
        made = len(normalizer.normalize_str(stretch))
        if made > MAX_GROWTH * _STRETCH:
            raise CheckpointError(
                f"expected a tokenizer that keeps the length of a text, it makes {made:,} characters of {_STRETCH}"
            )


def _stretches() -> Iterator[str]:
    """All characters of the first two planes, which is all scripts and emoji."""
    for start in range(0, min(_PLANES, sys.maxunicode), _STRETCH):
        if not 0xD800 <= start < 0xE000:
            yield "".join(map(chr, range(start, start + _STRETCH)))


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Every token id must have a row in the embedding matrix."""
    embeddings = model.get_input_embeddings()
    rows = embeddings.weight.shape[0] if isinstance(embeddings, torch.nn.Embedding) else 0
    vocabulary = tokenizer.get_vocab()
    if not vocabulary.keys() - set(tokenizer.all_special_tokens):
        raise CheckpointError("expected a vocabulary in the tokenizer, it holds nothing but special tokens")
    largest = max(vocabulary.values())
    if largest >= rows:
        raise CheckpointError(f"expected token ids below the {rows} rows of the embedding matrix, got {largest}")
