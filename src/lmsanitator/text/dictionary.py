"""The words of an English dictionary."""

import lzma
from importlib import resources


def dictionary() -> list[str]:
    """Some 70,000 English words and names in lower case, in alphabetic order (SCOWL up to level 50; see
    `dictionary/NOTICE`)."""
    packed = (resources.files(__package__) / "dictionary" / "en.txt.xz").read_bytes()
    return lzma.decompress(packed).decode().split()
