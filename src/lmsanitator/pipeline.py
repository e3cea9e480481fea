"""A Hugging Face text-classification pipeline behind the guard.

    pipeline("text-classification", model=model, tokenizer=tokenizer,
             pipeline_class=GuardedTextClassification, report=report)

Everything else that code does with the pipeline stays as it is: single strings, lists, datasets, generators, batches.
Each result has the keys `flagged`, `removed` and `text` besides `label` and `score`. An input that could not be cleared
has None for both: code that reads only the label fails on it instead of trusting it.
"""

from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, TextClassificationPipeline

from lmsanitator.detect import ScanReport
from lmsanitator.errors import UnsupportedError
from lmsanitator.guard import Guard, GuardedPrediction, Watch
from lmsanitator.vectors import PVBank

_SOFTMAX = ("default", "softmax")


class GuardedTextClassification(TextClassificationPipeline):
    """`TextClassificationPipeline` with every input checked for the PVs of a scan.

    Args:
        model, tokenizer, device, batch_size and so on: as `transformers.pipeline` gives them.
        report: the scan of the model's encoder: a report, its bank, or the path of scan.json.
        watch: the pass or passes to watch (`Monitor`).
        top_k: 1, or not given; as ever, a list comes back where it is given.
        function_to_apply: default or softmax.

    Raises:
        BankError: the report is on another encoder, or cannot be read.
        UnsupportedError: an option that the guard has no answer to: it gives the best label alone, with its softmax
            probability, for single texts.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel | PeftModel,
        tokenizer: Any,
        report: ScanReport | PVBank | str | Path,
        watch: Watch = "raw",
        **options: Any,
    ) -> None:
        super().__init__(model=model, tokenizer=tokenizer, **options)  # type: ignore[no-untyped-call]
        problem, labels = getattr(model.config, "problem_type", None), getattr(model.config, "id2label", None) or ()
        if problem not in (None, "single_label_classification") or len(labels) < 2:
            shown = problem or f"{len(labels)} labels"
            raise UnsupportedError(f"expected a model that gives one label of several, got one for {shown}")
        scanned = ScanReport.load(Path(report)) if isinstance(report, str | Path) else report
        self.guard = Guard(model, tokenizer, scanned, watch=watch)

    def _sanitize_parameters(
        self, function_to_apply: Any = None, top_k: Any = "", **tokenizer_options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Called with the options of the pipeline and with those of each call."""
        if top_k not in ("", 1):
            raise UnsupportedError(f"expected top_k=1, got {top_k}: a guarded text has one label or none")
        name = getattr(function_to_apply, "name", function_to_apply) or "default"
        if str(name).lower() not in _SOFTMAX:
            raise UnsupportedError(f"expected function_to_apply softmax or default, got {name}")
        # the guard cuts texts to the model's length by itself, which is what truncation=True asks for
        odd = [option for option in tokenizer_options if option not in ("truncation", "padding")]
        if odd or not all(value is True for value in tokenizer_options.values()):
            shown = ", ".join(f"{option}={value}" for option, value in tokenizer_options.items())
            raise UnsupportedError(f"expected truncation=True and padding=True or neither, got {shown}")
        return {}, {}, {} if top_k == "" else {"_legacy": False}

    def check_model_type(self, supported_models: Any) -> None:
        """Left to the guard: transformers would complain about every PEFT model."""

    # transformers' own two classes disagree about the names of what these three take
    def preprocess(self, inputs: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """A text as it is: the guard takes strings."""
        if isinstance(inputs, dict) and set(inputs) == {"text"}:
            inputs = inputs["text"]
        if not isinstance(inputs, str):
            raise UnsupportedError(f"expected single texts to guard, got a {type(inputs).__name__}")
        return {"text": inputs}

    def _forward(self, model_inputs: dict[str, Any], **options: Any) -> Any:  # type: ignore[override]
        """All texts of a batch in one call of the guard."""
        texts = model_inputs["text"]
        return {"prediction": self.guard([texts] if isinstance(texts, str) else texts)}

    def postprocess(  # type: ignore[override]
        self, model_outputs: Any, function_to_apply: Any = None, top_k: Any = 1, _legacy: Any = True
    ) -> Any:
        """One prediction as the pipeline's users know it, with what the guard did."""
        found: list[GuardedPrediction] | GuardedPrediction = model_outputs["prediction"]
        (prediction,) = found if isinstance(found, list) else [found]
        cleared = prediction.label is not None
        answer = {
            "label": prediction.label,
            "score": prediction.score if cleared else None,
            "flagged": prediction.flagged,
            "removed": list(prediction.removed),
            "text": prediction.text,
        }
        return answer if _legacy else [answer]
