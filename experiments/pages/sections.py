"""What a report says, before it is written as Markdown or as a page: text, tables and pictures.

Texts are prose; a name between backticks is code. Nothing here knows how it is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Union

from pandas import DataFrame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOTHING = "–"  # noqa: RUF001 - an empty cell of a table is easily taken for a mistake


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
      text: What it says.
      is_best: Whether it is the best of its column or row, or as good.
    """

    text: str
    is_best: bool = False


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
      text: Its sentences.
      is_note: Whether it explains a table or a picture; else it is what a reader came for.
    """

    text: str
    is_note: bool = True


@dataclasses.dataclass(frozen=True)
class Points:
    """A list of sentences."""

    texts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      caption: What it shows.
      cells: Of `Cell` or text. The names of the index head its columns of words.
    """

    caption: str
    cells: DataFrame


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes of a picture.

    Attributes:
      title: What it shows.
      draw: Draws on axes, all but the title and the legend.
    """

    title: str
    draw: Callable[[Axes], None]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
      name: The name of its file, without the ending.
      alt: What somebody who does not see it has to know.
      rows: The panels.
      styles: How each entry of the legend is drawn, as arguments of `Axes.plot`.
      shares_y: Whether the panels of a row share their axis of values.
      panel_inches: The width and the height of a panel in a picture of several.
      is_on_page_only: Whether Markdown leaves it out.
    """

    name: str
    alt: str
    rows: tuple[tuple[Panel, ...], ...]
    styles: Mapping[str, Mapping[str, object]]
    shares_y: bool = False
    panel_inches: tuple[float, float] = (5.7, 3.5)
    is_on_page_only: bool = False

    @property
    def panels(self) -> list[Panel]:
        return [panel for row in self.rows for panel in row]


Block = Union[Text, Points, Table, Picture]


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report; without a title it goes on with the part before.

    Attributes:
      title: Its heading.
      blocks: What it says, in order.
    """

    title: str
    blocks: tuple[Block, ...]

    @property
    def pictures(self) -> list[Picture]:
        return [block for block in self.blocks if isinstance(block, Picture)]
