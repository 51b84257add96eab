"""Elements are escaped, and scales put values where they belong."""

import pytest

from app.svg import drawing, element, linear, root, share, shorten, spaced, ticks


def test_texts_and_attributes_are_escaped() -> None:
    found = element("text", "<script>", element("title", "a & b"), class_='x" onload="y', x=1.239)
    assert found == (
        '<text class="x&#34; onload=&#34;y" x="1.24">&lt;script&gt;<title>a &amp; b</title></text>'
    )
    assert 'aria-label="a &lt; b"' in drawing(10, 20.5, "a < b")


def test_scales() -> None:
    assert [linear(0, 2, 10, 30)(v) for v in (-1, 0, 1, 2, 3)] == [10, 10, 20, 30, 30]
    assert linear(1, 1, 0, 10)(1) == 0  # nothing to divide by
    assert root(0.25, 0, 100)(0.0625) == 50
    assert root(0, 0, 100)(0) == 0


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (3, 61, [20, 40, 60]), (-2, 2, [-2, -1, 0, 1, 2]), (5, 5, [5])],
)
def test_ticks_are_round_and_within(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_ticks_keep_their_distance() -> None:
    assert spaced([0, 1, 2, 5], linear(0, 10, 0, 100), 20) == [0, 2, 5]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00055, "0.055"), (0.0045, "0.45"), (0.01, "1"), (0.0996, "10"), (0.123, "12"),
     (0.995, "99.5"), (0.99999, "99.9"), (1, "100")],
)  # fmt: skip
def test_shares(value: float, text: str) -> None:
    assert share(value) == f"{text}\u00a0%"


def test_long_names_are_cut() -> None:
    assert shorten("a" * 12) == "a" * 12
    assert shorten("a" * 13) == "a" * 11 + "…"
