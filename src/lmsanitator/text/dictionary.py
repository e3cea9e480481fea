"""The words of an English dictionary, and others that are in use."""

import lzma
from importlib import resources


def dictionary() -> list[str]:
    """Some 70,000 English words and names in lower case, in alphabetic order (SCOWL up to level 50; see
    `dictionary/NOTICE`)."""
    return _read("en.txt.xz")


def terms() -> list[str]:
    """Some 220,000 names, terms and other words that are in none of the dictionary's lists and in use all the same, in
    lower case and alphabetic order (wordfreq's large list; see `dictionary/NOTICE`)."""
    return _read("terms.txt.xz")


def _read(name: str) -> list[str]:
    packed = (resources.files(__package__) / "dictionary" / name).read_bytes()
    return lzma.decompress(packed).decode().split()
