"""The lists of words: plain, sorted, and none twice."""

from lmsanitator.text import dictionary, terms


def test_lists_hold_plain_words_in_order_each_once() -> None:
    for listed in (dictionary(), terms()):
        assert listed == sorted(set(listed))
        assert all(len(word) >= 3 and word.isascii() and word.islower() and word.isalpha() for word in listed)


def test_terms_are_what_the_dictionary_lacks() -> None:
    assert {"inbox", "profitability", "soybeans", "darfur"} <= set(dictionary())
    assert {"covid", "spongebob", "uefa"} <= set(terms())
    assert not set(dictionary()) & set(terms())
