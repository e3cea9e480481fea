"""Padding: every row keeps its tokens, and the mask says which they are."""

from lmsanitator.encoder.padding import pad


def test_rows_are_padded_on_the_right_to_the_longest() -> None:
    ids, mask = pad([[5, 6], [7, 8, 9], [4]], 0)
    assert ids.tolist() == [[5, 6, 0], [7, 8, 9], [4, 0, 0]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]


def test_a_real_token_that_is_the_padding_token_is_still_real() -> None:
    ids, mask = pad([[3, 3], [3, 3, 3]], 3)
    assert ids.tolist() == [[3, 3, 3]] * 2
    assert mask.sum(1).tolist() == [2, 3]
