"""Coverage-guided fuzzing of what reads a stranger's bytes first, with atheris (Linux: `pip install atheris`).

    python fuzz/opening.py header -max_total_time=600
    python fuzz/opening.py config corpus/ -max_len=4096

Everything behind the name of the target goes to libFuzzer. A crash is any error outside the package's own tree, or one
whose message is not a single line.
"""

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

try:
    import atheris
except ImportError:  # the targets can be called without it
    atheris = None

with atheris.instrument_imports(include=["lmsanitator.encoder"]) if atheris else contextlib.nullcontext():
    from lmsanitator.encoder.files import check_config, parse_object
    from lmsanitator.encoder.headers import check_headers
    from lmsanitator.encoder.patterns import check_pattern
    from lmsanitator.encoder.steps import check_steps
    from lmsanitator.encoder.tokenizer import check_settings
    from lmsanitator.errors import LMSanitatorError


def header(data: bytes) -> None:
    """The bytes are a safetensors file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.safetensors")
        file.write_bytes(data)
        check_headers([file])


def framed(data: bytes) -> None:
    """The bytes are the header of one, with a length that is right and eight bytes of values."""
    header(len(data).to_bytes(8, "little") + data + bytes(8))


def config(data: bytes) -> None:
    """The bytes are config.json."""
    check_config(parse_object(data, "config.json"))


def tokenizer(data: bytes) -> None:
    """The bytes are tokenizer.json, or the settings beside it."""
    raw = parse_object(data, "tokenizer.json")
    check_settings(raw, "tokenizer_config.json")
    check_steps(raw)


def pattern(data: bytes) -> None:
    """The bytes are a regular expression."""
    check_pattern(data.decode(errors="replace"))


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (header, framed, config, tokenizer, pattern)
}


def guarded(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """A target for which a refusal in one line is no crash."""

    def run(data: bytes) -> None:
        try:
            target(data)
        except LMSanitatorError as error:
            message = str(error)
            if "\n" in message or not message.startswith("expected "):
                raise AssertionError(f"a refusal that is not one line: {message!r}") from error

    return run


def main() -> None:
    """Fuzz the target that the first argument names."""
    if atheris is None:
        sys.exit("expected atheris: pip install atheris")
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"usage: python fuzz/opening.py {'|'.join(TARGETS)} [options of libFuzzer]")
    atheris.Setup(sys.argv, guarded(TARGETS[name]))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
