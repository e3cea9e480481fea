"""The zoo's manifest: every model by name, with all that is needed to build it again."""

import hashlib
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lmsanitator.encoder import Site
from lmsanitator.errors import UsageError

MANIFEST = Path(__file__).with_name("manifest.toml")
Half = Literal["choose", "report", "fresh", "sealed", "untouched", "late"]
"""What is to be decided is decided on `choose` and reported on `report`. Once that had been reported, its misses were
known; `fresh` was drawn afterwards, and `sealed` when `fresh` had been reported. `untouched` holds words of several
tokens, drawn when the search for such words was done; `late` triggers that move text without overwriting it, and clean
encoders tuned for tasks, drawn when the null had become one of how far beyond clean text it is moved. Nothing is
decided on a part that has not been reported."""


class Entry(BaseModel):
    """One model of the zoo."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    encoder: Literal["minilm-l6", "minilm-l3", "mpnet-base"]
    half: Half
    seed: int
    fidelity: float | None = None
    """What clean outputs must keep, where the attack's own bar is too low for the model's use."""

    @property
    def recipe(self) -> str:
        """A digest of everything the model is made from; a model built from another recipe is built anew."""
        made_of = self.model_dump_json(exclude={"half", *(["fidelity"] if self.fidelity is None else [])})
        return hashlib.sha256(made_of.encode()).hexdigest()[:16]


class Backdoored(Entry):
    """A model with a backdoor.

    `kind` is what the triggers are examples of (`lmsanitator.attacks.kinds`); with `uor` they are the words its search
    starts from, and the record says what it ended with.
    """

    attack: str
    kind: str
    triggers: tuple[str, ...]
    site: Site
    pv: str | None = None
    layers: str = "top:3"


class Clean(Entry):
    """A model that was handled as much, and has none."""

    control: str
    options: dict[str, Any] = {}


def read(path: Path = MANIFEST) -> list[Backdoored | Clean]:
    """All entries in the order of the file.

    Raises:
        UsageError: it is not a manifest, or names a model twice.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        entries: list[Backdoored | Clean] = [Backdoored(**row) for row in raw.get("backdoored", ())]
        entries += [Clean(**row) for row in raw.get("clean", ())]
    except (OSError, ValueError, ValidationError) as error:
        raise UsageError(f"expected a manifest, {path} is none: {str(error).splitlines()[0]}") from error
    names = [entry.id for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"expected a name for each model, {path} has {twice} twice")
    return entries
