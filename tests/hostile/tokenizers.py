"""A tokenizer is a small program: these do not end, swell, panic, or read what they should not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.case import Build, Case, canary, edit_json, outside, remove, then, write, write_json

ONCE = "frames a text, once"
BOUNDED, WORKS, LENGTH, WORDS = "bounded cost", "tokenizer that works", "keeps the length", "leaves words as they are"
FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"


def part(**parts: Any) -> Build:
    return edit_json(FILE, lambda raw: raw.update(parts))


def setting(**settings: Any) -> Build:
    return edit_json(SETTINGS, lambda raw: raw.update(settings))


def replace(pattern: str, content: str = "") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def swap(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def chain(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": steps}


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "Lowercase"}
    for _ in range(depth):
        inner = chain([inner])
    return inner


def frame(*, pieces: int, ids: int) -> dict[str, Any]:
    """Special tokens around a text: so many, each of so many ids."""
    around = [{"SpecialToken": {"id": "x", "type_id": 0}}] * pieces
    special = {"x": {"id": "x", "ids": [0] * ids, "tokens": ["[PAD]"] * ids}}
    single = [*around, {"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": single, "pair": around, "special_tokens": special}


def bytes_as_characters(times: int) -> dict[str, Any]:
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [step] * times}


def model(change: Callable[[dict[str, Any]], object]) -> Build:
    return edit_json(FILE, lambda raw: change(raw["model"]))


def other_model(**about: Any) -> Build:
    return edit_json(FILE, lambda raw: raw.update(model=about, added_tokens=[], post_processor=None))


def read_a_neighbour(folder: Path) -> None:
    """Settings that name files by path, and no tokenizer of one's own."""
    near = str(outside(folder, "vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n"))
    (folder / FILE).unlink()
    (folder / "vocab.json").write_text("{}")
    setting(vocab_file=near, tokenizer_file=near, special_tokens_map_file=near)(folder)


def template(folder: Path) -> str:
    return "{{ cycler.__init__.__globals__.os.system('touch " + str(canary(folder)) + "') }}"


def render(folder: Path) -> None:
    """Chat templates in every place they may stand."""
    setting(chat_template=template(folder))(folder)
    write("chat_template.jinja", template(folder))(folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "evil.jinja").write_text(template(folder))


def pad_to(length: int) -> dict[str, Any]:
    return {
        "strategy": {"Fixed": length}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip


TWICE = frame(pieces=0, ids=1) | {"single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2}
TABLE = {"type": "Precompiled", "precompiled_charsmap": "CAAAAP//////////YWJj"}
CASES = [
    Case("no JSON", write(FILE, "{"), "JSON"),
    Case("a list", write(FILE, "[]"), "JSON object"),
    Case("brackets without end", write(FILE, '{"a":' + "[" * 10**6), "JSON"),
    Case("of 65 megabytes", write(FILE, b" " * (65 * 2**20)), "67,108,864"),
    Case("a vocabulary file of 65 megabytes", write("vocab.txt", b"\n" * (65 * 2**20)), "67,108,864"),
    Case("a template file of 65 megabytes", write("chat_template.jinja", b" " * (65 * 2**20)), "67,108,864"),
    Case("an entry twice", write(FILE, '{"version": "1.0", "version": "2.0"}'), "twice"),
    Case("a repeat inside a repeat, normalizing", part(normalizer=replace("(a+)+$")), BOUNDED),
    Case("a repeat inside a repeat, splitting", part(pre_tokenizer=split(r"^(\w+\s?)*$")), BOUNDED),
    Case("a repeat inside a repeat, decoding", part(decoder=replace("(x*)*y")), BOUNDED),
    Case("a repeat deep inside steps", part(normalizer=chain([chain([replace("(?:a|b+)*c")])])), BOUNDED),
    Case("repeats in a row", part(pre_tokenizer=split(".*.*.*.*.*=")), BOUNDED),
    Case("a counted repeat of a repeat", part(pre_tokenizer=split("(?:a{1,9}){1,9}")), BOUNDED),
    Case("a repeat of a counted repeat", part(pre_tokenizer=split("a{1,9}+b")), BOUNDED),
    Case("a repeat of a million", part(pre_tokenizer=split("a{1000000}")), BOUNDED),
    Case("optional letters in a row", part(pre_tokenizer=split("a?" * 40 + "a" * 40)), BOUNDED),
    Case("choices in a row", part(pre_tokenizer=split("(?:a|a)" * 40 + "b")), BOUNDED),
    Case("a pattern that calls itself", part(pre_tokenizer=split(r"(?<x>a\g<x>?b)")), BOUNDED),
    Case("a pattern that refers back", part(pre_tokenizer=split(r"(a*)\1\1\1b")), BOUNDED),
    Case("a pattern under a condition", part(pre_tokenizer=split(r"(a)?(?(1)b|c)")), BOUNDED),
    Case("a pattern of a megabyte", part(pre_tokenizer=split("a" * 2**20)), BOUNDED),
    Case("a pattern that is none", part(pre_tokenizer=split("(a")), BOUNDED),
    Case("steps that double the text", part(normalizer=chain([swap("a", "aa")] * 40)), LENGTH),
    Case("a replacement of a megabyte", part(normalizer=swap("a", "b" * 2**20)), LENGTH),
    Case("a replacement of nothing by much", part(normalizer=replace("x*", "b" * 100)), LENGTH),
    Case("a prefix of a megabyte", part(normalizer={"type": "Prepend", "prepend": "b" * 2**20}), LENGTH),
    Case("a thousand steps", part(normalizer=chain([{"type": "Lowercase"}] * 1000)), "64 "),
    Case("steps within steps without end", part(normalizer=nested(400)), "64 steps"),
    Case("a frame of many tokens", part(post_processor=frame(pieces=10**4, ids=1)), "64 entries"),
    Case("a frame of one token of many ids", part(post_processor=frame(pieces=1, ids=10**5)), "64 entries"),
    Case("a frame of few times few", part(post_processor=frame(pieces=60, ids=60)), "64 tokens"),
    Case(
        "a frame for a second text alone",
        part(post_processor=frame(pieces=0, ids=1) | {"single": [{"Sequence": {"id": "B", "type_id": 0}}]}),
        ONCE,
    ),
    Case("a table that is none", part(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}), WORKS),
    Case("a table that points outside itself", part(normalizer=TABLE), WORKS),
    Case("a table among steps", part(normalizer=chain([{"type": "Lowercase"}, TABLE])), WORKS),
    Case("pieces of no length", part(pre_tokenizer={"type": "FixedLength", "length": 0}), WORKS),
    Case(
        "merges that do not fit",
        other_model(type="BPE", vocab={"a": 0}, merges=[["a", "a"]], continuing_subword_prefix="###"),
        WORKS,
    ),
    Case("an unknown token that is not there", model(lambda raw: raw.update(unk_token="[GONE]")), WORKS),
    Case("an unknown id that is not there", other_model(type="Unigram", unk_id=7, vocab=[["a", -1.0]]), WORKS),
    Case("no vocabulary", other_model(type="Unigram", unk_id=0, vocab=[]), WORKS),
    Case("a vocabulary of text", model(lambda raw: raw.update(vocab="abc")), WORKS),
    Case("an id below zero", model(lambda raw: raw["vocab"].update(a=-1)), WORKS),
    Case("an id beyond 32 bits", model(lambda raw: raw["vocab"].update(a=2**40)), WORKS),
    Case(
        "other tokens of a text each time",
        other_model(type="BPE", vocab={"a": 0, "[PAD]": 1}, merges=[], dropout=0.1),
        "same tokens of a text",
    ),
    Case("words without end", model(lambda raw: raw.update(max_input_chars_per_word=10**9)), "256 letters"),
    Case("a kind that is not known", other_model(type="Evil"), WORKS),
    Case(
        "a tokenizer that knows nothing", other_model(type="BPE", vocab={"é": 0, "[PAD]": 1}, merges=[]), "makes tokens"
    ),
    Case("a tokenizer that swallows everything", part(normalizer=replace(r"[\s\S]"), post_processor=None), WORDS),
    Case("a word that is taken for another", part(normalizer=swap("cf", "the")), WORDS),
    Case("a word that is another behind a test's", part(normalizer=replace("(?<=a )cf", "the")), WORDS),
    Case("a test's text that is none", part(normalizer=replace("^a$")), WORDS),
    Case("a word among signs", part(normalizer=replace("[ -~]")), WORDS),
    Case("a word by its number", part(normalizer=replace(r"\x{63}\x{66}", "the")), WORDS),
    Case("a word that ends texts", setting(eos_token="the"), "eos_token to be no word"),
    Case("a word that begins texts", setting(bos_token="of"), "bos_token to be no word"),
    Case("a word that is not known", setting(unk_token="and"), "unk_token to be no word"),
    Case("a text that comes twice", part(post_processor=TWICE), ONCE),
    Case("bytes as characters, as bytes", part(normalizer=chain([{"type": "ByteLevel"}] * 40)), LENGTH),
    Case("the same before words are looked up", part(pre_tokenizer=bytes_as_characters(40)), LENGTH),
    Case("ligatures taken apart and put in", part(normalizer=chain([swap("!", "ﷺ"), {"type": "NFKC"}] * 9)), LENGTH),
    Case("an octal number", part(normalizer=chain([replace(r"\040", "   ")] * 3)), BOUNDED),
    Case("another octal number", part(normalizer=replace(r"\o{40}", "   ")), BOUNDED),
    Case("a border of unknown width", part(normalizer=replace(r"\y", "   ")), BOUNDED),
    Case("a step of no kind", part(normalizer={"pattern": {"String": " "}, "content": "  "}), "say what they are"),
    Case("a step of no kind among others", part(normalizer=chain([{"prepend": "  "}])), "say what they are"),
    Case(
        "another tokenizer file",
        then(setting(fast_tokenizer_files=["tokenizer.4.0.0.json"]), write_json("tokenizer.4.0.0.json", {})),
        "only tokenizer",
    ),
    Case("another tokenizer file above", setting(fast_tokenizer_files=["../tokenizer.4.0.0.json"]), "only tokenizer"),
    Case("a window below zero", setting(model_max_length=-5), "model_max_length"),
    Case("a window in words", setting(model_max_length="long"), "model_max_length"),
    Case("settings that are a list", write(SETTINGS, "[]"), "JSON object"),
    Case("special tokens that are numbers", setting(cls_token=7), WORKS),
    Case("added tokens that are numbers", setting(added_tokens_decoder={"0": 1}), WORKS),
    Case("added tokens at odd places", setting(added_tokens_decoder={"x": {"content": "a"}}), WORKS),
    Case("a class of another library", setting(tokenizer_class="BertJapaneseTokenizer"), "tokenizer"),
    Case(
        "patterns in another format",
        then(remove(FILE), write("vocab.txt", "a\n"), write_json("tekken.json", {"config": {"pattern": "(a+)+$"}})),
        "tekken.json",
    ),
    Case(
        "a sentencepiece file that is none",
        then(remove(FILE, SETTINGS), write("spiece.model", b"\x0a\xff\xff\xff\xff\x0f")),
        "tokenizer",
    ),
    Case("a vocabulary of no UTF-8", then(remove(FILE), write("vocab.txt", b"\xff\xfe\n")), WORKS),
    Case("files named by path", read_a_neighbour, "tokenizer"),
    Case("no tokenizer", remove(FILE, SETTINGS), "found none"),
    Case("templates that run code", render, code=None),
    Case("padding without end", part(padding=pad_to(10**12)), code=None),
    Case("a class that is no tokenizer", setting(tokenizer_class="os.system"), code=None),
]
