"""Every family in turn: its name, its files and its encoder. Tests must leave the encoder as it is: they share it."""

from pathlib import Path

import pytest

from lmsanitator.encoder import FrozenEncoder
from tests.conformance.families import FAMILIES, open_family


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """The name of each family in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def encoder(family: str, tmp_path_factory: pytest.TempPathFactory) -> FrozenEncoder:
    """The small random encoder of each family in turn, opened from its files."""
    return open_family(family, tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="session")
def folder(encoder: FrozenEncoder) -> Path:
    """The files that encoder was opened from."""
    return Path(encoder.source)
