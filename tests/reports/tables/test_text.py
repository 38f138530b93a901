"""Text of the tables: escaping, Unicode, breaking, and the split of blocks between floats."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.make.typeset.render import prose_tex, wrap_tex
from reports.make.typeset.sheet import LONG, Block, Line, pages, plain
from reports.make.typeset.text import breakable, escape_markdown, escape_tex, one_line
from reports.make.typeset.words import probability


def test_specials_and_signs():
    specials = r"50% of $x_1$ & #2 {a}~b^c \d [e] <f> g*h|i"
    assert escape_tex(specials) == (
        r"50\% of \$x\_1\$ \& \#2 \{a\}\textasciitilde{}b\textasciicircum{}c "
        r"\textbackslash{}d {[}e] \textless{}f\textgreater{} g{*}h\textbar{}i"
    )
    assert escape_tex('the "dropout" 3×3 ± 1 \u2212 2 5"') == (
        r"the ``dropout'' 3$\times$3 $\pm$ 1 $-$ 2 5''"
    )
    assert escape_markdown("a_b|c*[d]\n- e") == r"a\_b\|c\*\[d\] - e"


@pytest.mark.parametrize(
    ("text", "tex"),
    [
        ("é ï ç ő Å", r"\'{e} \"{\i} \c{c} \H{o} \r{A}"),
        ("e\u0301", r"\'{e}"),  # the same é in two code points
        ("a – b — c… µ α Σ ≤", r"a -- b --- c\ldots{} $\mu$ $\alpha$ $\Sigma$ $\leq$"),
        ("肝\x07🫁", r"{[}U+809D]{[}U+0007]{[}U+1FAC1]"),
        ("two\n\nlines\tand a tab ", "two lines and a tab"),
    ],
)
def test_unicode_is_written_or_named(text, tex):
    assert escape_tex(text) == tex


@given(st.text())
def test_any_text_is_ascii_without_a_paragraph(text):
    shown = escape_tex(text)
    assert shown.isascii()
    assert "\n" not in shown
    # Braces balance: no text leaves its cell.
    bare = shown.replace(r"\{", "").replace(r"\}", "")
    depth = 0
    for character in bare:
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0


@given(st.text(), st.integers(1, 40))
def test_breaking_changes_no_letter(text, longest):
    shown = breakable(text.replace("\u200b", ""), longest)
    assert shown.replace("\u200b", "") == one_line(text.replace("\u200b", ""))


def test_long_words_may_be_broken():
    word = "w" * 60
    assert prose_tex(f"short {word}").count(r"\penalty500{}") == 5
    assert r"\penalty" not in prose_tex("an ordinary sentence of words that are not long")
    assert wrap_tex("x" * LONG) == "x" * LONG
    assert wrap_tex("x" * (LONG + 1)).startswith(r"\parbox[t]{13em}")


def test_probabilities():
    shown = [probability(p) for p in (None, 0.0004, 0.0123, 0.0496, 0.05, 1.0)]
    assert shown == ["--", "<0.001", "0.012", "<0.050", "0.050", "1.000"]


heights = st.lists(st.integers(0, 30), max_size=12)


@given(heights, st.booleans(), st.integers(6, 40))
def test_pages_hold_every_line_once_and_in_order(heights, whole, limit):
    blocks = [
        Block(f"b{i}", tuple(Line(plain([f"{i}.{j}"])) for j in range(height)), whole)
        for i, height in enumerate(heights)
    ]
    floats = pages(blocks, limit)
    lines = [line for part in floats for block in part for line in block.lines]
    assert lines == [line for block in blocks for line in block.lines]
    for part in floats:
        assert all(block.lines for block in part)
        if not (whole and max(heights) >= limit):
            assert sum(block.height for block in part) <= limit
    titles = [block.title for part in floats for block in part]
    assert len(set(titles)) == len(titles) or any("(continued)" in title for title in titles)
    if whole:
        assert all("(continued)" not in title for title in titles)


def test_pages_are_evenly_filled():
    blocks = [Block("", tuple(Line(plain(["x"])) for _ in range(74)))]
    assert [sum(b.height for b in part) for part in pages(blocks, 36)] == [27, 27, 20]
