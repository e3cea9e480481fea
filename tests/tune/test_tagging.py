"""Labels for words: reading such tasks, finding the words in the tokens, tuning, storing."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForTokenClassification

from lmsanitator.encoder import FrozenEncoder
from lmsanitator.errors import CorpusError, TuningError, UnsupportedError
from lmsanitator.tune import (
    CAPABILITIES,
    METHODS,
    Method,
    Tagged,
    Tagging,
    Task,
    TuneConfig,
    build_tagger,
    entity_f1,
    load_tuned,
    open_task,
    predict_words,
    read_tagging,
    tune,
)
from lmsanitator.tune.tagger import make_word_inputs

LABELS = ("O", "B-thing", "I-thing")
PLAIN = Tagged(("the", "people", "of", "the", "time"), (0, 1, 0, 0, 0))
LONG = Tagged(("a", "time", "in", "water"), (0, 0, 0, 1))
TASK = Tagging(LABELS, (PLAIN, LONG) * 20, (PLAIN, LONG) * 4, (PLAIN, LONG))
ROWS = [{"tokens": ["Bergen", "is", "old"], "ner_tags": ["B-Loc", "O", "O"]}, {"tokens": ["so"], "ner_tags": ["O"]}]
peft_warns = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's, on its own


def write(folder: Path, **splits: list[Any]) -> Path:
    for name, rows in splits.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_a_folder_of_labelled_words_is_read(tmp_path: Path) -> None:
    task = read_tagging(write(tmp_path, train=ROWS, validation=ROWS[:1], test=ROWS[1:]))
    assert task.labels == ("O", "B-Loc")
    assert task.train[0] == Tagged(("Bergen", "is", "old"), (1, 0, 0))
    assert task.names(task.train[0]) == ["B-Loc", "O", "O"]
    assert [len(task.train), len(task.validation), len(task.test)] == [2, 1, 1]
    assert open_task(tmp_path) == task


def test_a_missing_validation_split_is_taken_off_train_and_stands_in_for_test(tmp_path: Path) -> None:
    rows = [{"tokens": [f"w{number}"], "ner_tags": ["B-x" if number % 2 else "O"]} for number in range(20)]
    task = read_tagging(write(tmp_path, train=rows))
    assert [len(task.train), len(task.validation)] == [18, 2]
    assert task.test == task.validation
    assert not set(task.train) & set(task.validation)
    with pytest.raises(CorpusError, match="expected a validation split, or more than 2 sentences"):
        read_tagging(write(tmp_path, train=ROWS))


def test_other_folders_are_opened_as_tasks_of_texts(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": number % 2} for number in range(20)]
    assert isinstance(open_task(write(tmp_path, train=rows)), Task)
    (tmp_path / "train.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"expected JSON in .*train.jsonl, line 1"):
        open_task(tmp_path)
    with pytest.raises(CorpusError, match="expected a task folder or a Hugging Face dataset id"):
        open_task(tmp_path / "none")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a"], "ner_tags": []}, r"expected the fields tokens and ner_tags, .* in .*line 3, got \[\]"),
        ({"tokens": "a", "ner_tags": ["O"]}, "two lists of strings, in .*line 3, got 'a'"),
        ({"tokens": ["a"], "ner_tags": [1]}, r"two lists of strings, in .*line 3, got \[1\]"),
        ({"tokens": ["a"]}, "line 3, got None"),
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "expected a label for each word in .*line 3, got 2 words and 1"),
        ({"tokens": ["a"], "ner_tags": ["Loc"]}, "expected the label O and different labels .*, got Loc"),
        ([1], "expected an object with tokens and ner_tags in .*line 3"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read_tagging(write(tmp_path, train=[*ROWS, row], validation=ROWS))


def test_a_label_that_train_lacks_is_named(tmp_path: Path) -> None:
    write(tmp_path, train=ROWS, validation=[{"tokens": ["a"], "ner_tags": ["B-Peop"]}])
    with pytest.raises(CorpusError, match=r"expected a label of the training split in .*validation.jsonl, line 1"):
        read_tagging(tmp_path)


def test_a_word_is_found_by_its_first_token(encoder: FrozenEncoder) -> None:
    given = ["The", "unheardofword", ".", "", "water", " ", "U.S.", "日本", "the"]
    inputs, first = make_word_inputs(encoder.tokenizer, [given, ["the"]])
    assert first.shape == (2, len(given))
    assert first[1].tolist()[1:] == [-1] * (len(given) - 1)
    assert first[0, [3, 5]].tolist() == [-1, -1]
    starts = [at for at in first[0].tolist() if at >= 0]
    assert starts == sorted(set(starts))
    ends = [*starts[1:], int(inputs["attention_mask"][0].sum()) - len(encoder.frame[1])]
    shown = [
        str(encoder.tokenizer.decode(inputs["input_ids"][0, start:end])).replace(" ", "")
        for start, end in zip(starts, ends, strict=True)
    ]
    readable = [word for word in given if word.strip()]
    for word, text in zip(readable, shown, strict=True):
        assert text.lower() == word.lower() or encoder.tokenizer.unk_token in (text, text[: len("[UNK]")])


def test_words_behind_the_window_have_no_token_and_are_outside(bert: FrozenEncoder) -> None:
    model = build_tagger(bert, LABELS, TuneConfig(virtual_tokens=4))
    (scores,) = predict_words(model, bert.tokenizer, [["water"] * 40], longest=12)
    assert scores.read.tolist() == [True] * 10 + [False] * 30
    assert scores.tags(LABELS)[10:] == ["O"] * 30
    assert not scores.logits[10:].any()


@pytest.mark.parametrize("method", METHODS)
def test_tuning_learns_to_label_words_and_leaves_the_encoder_alone(encoder: FrozenEncoder, method: Method) -> None:
    reason = CAPABILITIES[encoder.model.config.model_type][method]
    if reason is not None and "last position" not in reason:  # a head on words does not read the end of the text
        with pytest.raises(UnsupportedError):
            tune(encoder, TASK, TuneConfig(method=method))
        return
    before = encoder.digest
    config = TuneConfig(method=method, epochs=20, patience=8, batch_size=8, learning_rate=1e-2, head_learning_rate=3e-2)
    tuned = tune(encoder, TASK, config)
    found = predict_words(tuned.model, tuned.tokenizer, [sentence.words for sentence in TASK.test])
    assert [scores.tags(tuned.labels) for scores in found] == [TASK.names(sentence) for sentence in TASK.test]
    assert (tuned.accuracy, tuned.labels_words) == (1.0, True)
    assert encoder.digest == before == tuned.encoder_digest


@pytest.mark.parametrize("method", METHODS)
def test_predictions_do_not_depend_on_the_batch(bert: FrozenEncoder, method: Method) -> None:
    model = build_tagger(bert, LABELS, TuneConfig(method=method, virtual_tokens=4))
    given = [PLAIN.words, ("water",), LONG.words * 3]
    together = predict_words(model, bert.tokenizer, given)
    for words, scores in zip(given, together, strict=True):
        (alone,) = predict_words(model, bert.tokenizer, [words])
        assert torch.allclose(alone.logits, scores.logits, atol=1e-5)


@peft_warns
@pytest.mark.parametrize("method", METHODS)
def test_a_saved_adapter_loads_with_this_package_and_without_it(
    bert: FrozenEncoder, method: Method, tmp_path: Path
) -> None:
    tuned = tune(bert, TASK, TuneConfig(method=method, max_steps=3))
    tuned.save(tmp_path / "tuned")
    given = [sentence.words for sentence in TASK.test]
    expected = torch.cat([scores.logits for scores in predict_words(tuned.model, tuned.tokenizer, given)])
    opened = load_tuned(tmp_path / "tuned")
    assert (opened.labels, opened.labels_words) == (LABELS, True)
    found = torch.cat([scores.logits for scores in predict_words(opened.model, opened.tokenizer, given)])
    assert torch.equal(found, expected)
    card = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    assert "AutoModelForTokenClassification" in card
    compile(card.split("```python\n")[1].split("```")[0], "README.md", "exec")
    base = AutoModelForTokenClassification.from_pretrained(bert.source, num_labels=len(LABELS))
    plain = PeftModel.from_pretrained(base, str(tmp_path / "tuned")).eval()
    outside = torch.cat([scores.logits for scores in predict_words(plain, tuned.tokenizer, given)])
    assert torch.allclose(outside, expected, atol=1e-6)


def test_a_site_and_labels_that_are_not_bio_are_refused(bert: FrozenEncoder) -> None:
    with pytest.raises(UnsupportedError, match="expected the site auto to label words by, got cls"):
        build_tagger(bert, LABELS, TuneConfig(site="cls"))
    with pytest.raises(CorpusError, match="expected the label O and different labels"):
        build_tagger(bert, ("B-a", "I-a"), TuneConfig())


def test_words_that_are_all_nothing_to_the_tokenizer_are_an_error(bert: FrozenEncoder) -> None:
    blank = (Tagged(("", " "), (0, 0)),)
    with pytest.raises(TuningError, match="expected words that the tokenizer makes tokens of"):
        tune(bert, Tagging(LABELS, blank, blank, blank), TuneConfig(max_steps=1))


def test_f1_counts_whole_entities() -> None:
    wanted = [["B-a", "I-a", "O", "B-b"], ["O", "B-a"]]
    assert entity_f1(wanted, wanted) == 1.0
    assert entity_f1(wanted, [["B-a", "O", "O", "B-b"], ["O", "B-b"]]) == pytest.approx(1 / 3)
    assert entity_f1(wanted, [["O"] * 4, ["O"] * 2]) == 0.0
    assert entity_f1([["O"]], [["O"]]) == 0.0


def test_without_seqeval_one_line_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "seqeval.metrics", None)
    with pytest.raises(TuningError, match=r"expected the seqeval package .*lmsanitator\[ner\].*, it is not installed"):
        entity_f1([["O"]], [["O"]])
