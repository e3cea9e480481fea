"""What a tokenizer sets apart from the words of a text.

A scanner tries the tokens that texts are made of, and reads outputs where texts begin. A stranger's tokenizer could
keep a trigger out of the first, by calling it the end of a text, or put something else where the second is, for a text
that looks like a test.
"""

import re

from transformers import PreTrainedTokenizerFast

from lmsanitator.errors import CheckpointError

_TEXTS = ("a", "x", "42", "The river runs past the old mill, as it did in 1987.", "À bientôt!", "春天来了", "мы дома")
_ROLES = ("cls", "sep", "bos", "eos", "pad", "mask", "unk")
_SET_APART = re.compile(r"[<\[({|_].+[>\])}|_]", re.DOTALL)
"""How all tokenizers of note write what is no word: [PAD], <pad>, <|endoftext|>, __null__."""
Frame = tuple[list[int], list[int]]


def check_frame(tokenizer: PreTrainedTokenizerFast) -> Frame:
    """The special tokens before and after every text.

    Raises:
        CheckpointError: they are not the same for all texts, or what has a role is a word.
    """
    frame = _frame_of(tokenizer, _TEXTS[0])
    if frame is None:
        raise CheckpointError(f"expected a tokenizer that makes tokens of text, it makes none of {_TEXTS[0]!r}")
    for text in _TEXTS[1:]:
        if _frame_of(tokenizer, text) not in (frame, None):
            raise CheckpointError(f"expected the same special tokens around all texts, those around {text!r} differ")
    around = {token for side in frame for token in side}
    for role in _ROLES:
        name, token = getattr(tokenizer, f"{role}_token"), getattr(tokenizer, f"{role}_token_id")
        if name is not None and token not in around and not _SET_APART.fullmatch(str(name)):
            raise CheckpointError(f"expected the {role}_token to be no word, as [PAD] and <pad> are, got {name!r:.80}")
    return frame


def _frame_of(tokenizer: PreTrainedTokenizerFast, text: str) -> Frame | None:
    """What stands around a text; None where the vocabulary has nothing of it."""
    plain = tokenizer(text, add_special_tokens=False).input_ids
    framed = tokenizer(text).input_ids
    if not plain:
        return None
    for start in range(len(framed) - len(plain) + 1):
        if framed[start : start + len(plain)] == plain:
            return framed[:start], framed[start + len(plain) :]
    raise CheckpointError(f"expected special tokens around a text and the text as it is, {text!r} comes out changed")


def name_first(tokenizer: PreTrainedTokenizerFast, frame: Frame) -> None:
    """Call the first token of every text by its role, whether the tokenizer does so or not: heads read there."""
    before = frame[0]
    if before and tokenizer.cls_token_id != before[0]:
        tokenizer.cls_token = str(tokenizer.convert_ids_to_tokens(before[0]))
