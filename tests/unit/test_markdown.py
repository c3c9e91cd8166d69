"""Whatever people and programs wrote, a reader sees that text and no markup of theirs."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from airlock.markdown import code, fenced, plain, table
from airlock.visible import visible

# The page's renderer, and what Prefect's adds to it.
RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

MARKUP = '\\`*_~[]()<>&|#+-=!.:1a \n\t"'
# PostgreSQL keeps no NUL.
WORDS = st.text(st.sampled_from(MARKUP) | st.characters(exclude_characters="\0"), max_size=40)


def on_one_line(text: str) -> str:
    return " ".join(visible(text).split())


def shown(markdown: str) -> tuple[list[str], list[tuple[str, str]]]:
    """The blocks that a renderer finds, and what is within their lines."""
    tokens = RENDERER.parse(markdown)
    blocks = [token.type for token in tokens if token.type.endswith("_open")]
    inside = [(part.type, part.content) for token in tokens for part in token.children or ()]
    return blocks, inside


ITEM = ["bullet_list_open", "list_item_open", "paragraph_open"]


@given(WORDS)
@example("__init__.py")
@example("~~gone~~ and ~gone~")
@example("- [x] <b>a</b> &amp; [x](y) `c`")
def test_words_on_a_line_are_that_text_alone(words):
    line = on_one_line(words)
    text = [("text", line)] if line else []
    assert shown(plain(words)) == (["paragraph_open"] if line else [], text)
    assert shown(f"- {plain(words)}") == (ITEM if line else ITEM[:2], text)


@given(WORDS, WORDS)
@example("C:\\|x", "\\")
def test_words_in_a_cell_stay_in_it(first, second):
    blocks, inside = shown(table(("a", "b"), [(plain(first), plain(second))]))
    assert blocks.count("td_open") == 2
    assert {kind for kind, _ in inside} == {"text"}
    wanted = ["a", "b", *filter(None, map(on_one_line, (first, second)))]
    assert [text for _, text in inside] == wanted


@given(WORDS)
@example("a | b \\| c")
@example("a `b` | c")
def test_code_in_a_cell_stays_in_it(words):
    blocks, inside = shown(table(("a", "b"), [(code(words), "c")]))
    assert blocks.count("td_open") == 2
    assert {kind for kind, _ in inside} <= {"text", "code_inline"}
    assert "".join(text for _, text in inside) == f"ab{on_one_line(words)}c"


@given(WORDS, st.sampled_from(["", "diff"]))
@example("a\n```\n# b", "diff")
def test_a_fence_holds_its_lines(words, language):
    tokens = RENDERER.parse(f"before\n\n{fenced(words, language)}\n\nafter")
    kinds = [token.type for token in tokens if token.type != "inline"]
    paragraph = ["paragraph_open", "paragraph_close"]
    assert kinds == [*paragraph, "fence", *paragraph]
    lines = visible(words).replace("\r\n", "\n") + "\n"
    assert tokens[3].content == lines


def test_names_are_readable_in_a_terminal_as_well():
    assert plain("011_deal_scores: 1.5 s - a") == "011_deal_scores: 1.5 s - a"
