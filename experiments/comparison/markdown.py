"""Sections of a report as GitHub's Markdown, which can be read as it is, too."""

from __future__ import annotations

from collections.abc import Iterable

from pandas import DataFrame

from experiments.pages.sections import Block, Cell, Picture, Points, Section, Table, Text


def written(title: str, sections: Iterable[Section]) -> str:
    """Returns a page of Markdown; pictures are PNG files beside it."""
    blocks = [f"# {title}"]
    for section in sections:
        blocks += [f"## {section.title}"] * bool(section.title)
        blocks += [text for block in section.blocks for text in _block(block)]
    return "\n\n".join(blocks) + "\n"


def _block(block: Block) -> list[str]:
    if isinstance(block, Text):
        return [block.text if block.is_note else f"**{block.text}**"]
    if isinstance(block, Points):
        return ["\n".join(f"- {text}" for text in block.texts)]
    if isinstance(block, Table):
        return [_table(block.cells)]
    assert isinstance(block, Picture)
    return [] if block.is_on_page_only else [f"![{block.name}]({block.name}.png)"]


def _table(cells: DataFrame) -> str:
    """Returns a table; the index is words."""
    words = cells.index.to_frame().astype(str)
    padded = []
    for columns, pad in ((words, str.ljust), (cells, str.rjust)):
        for heading, column in columns.items():
            texts = [_marked(cell) for cell in column]
            width = max(map(len, ["---", heading, *texts]))
            padded.append([pad(text, width) for text in (heading, pad(":", width, "-"), *texts)])
    return "\n".join("| " + " | ".join(row) + " |" for row in zip(*padded))


def _marked(cell: Cell | str) -> str:
    if not isinstance(cell, Cell):
        return cell
    return f"**{cell.text}**" if cell.is_best else cell.text
