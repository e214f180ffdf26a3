"""Pictures as one matplotlib figure (PNG files), or each panel as SVG inside a page.

On a page, black is the color of the text around it, so that a picture is light or dark as its page
is, and panels are apart, so that they stand beside or below each other as the screen allows.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # Not pyplot, which keeps global state.

from experiments.pages.sections import Panel, Picture

# Inches of a letter of a tick's label, about.
_LETTER = 0.076
# Inches of a panel on a page: legible on a phone, where a panel is as wide as the screen.
_WIDTH = 4.7
_SVG = {
    "svg.fonttype": "none",  # Text stays text: it can be found, read aloud and has the page's font.
    "font.size": 9.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# Colors that a page changes with its background; the others can be seen on both.
_ADAPTED = {
    "#000000": "currentColor",
    "#8b4513": "var(--brown)",
    "#f0e442": "var(--yellow)",
    "#0072b2": "var(--blue)",
}
_ID = re.compile(r' id="([^"]+)"')


def composed(picture: Picture) -> Figure:
    """Returns a picture with all of its panels and, below them, one legend."""
    num_columns = len(picture.rows[0])
    width, height = picture.panel_inches
    figure = Figure(
        figsize=(max(11, width * num_columns), 0.7 + height * len(picture.rows)),
        layout="constrained",
    )
    sharey = "row" if picture.shares_y else "none"
    axes_rows = figure.subplots(len(picture.rows), num_columns, squeeze=False, sharey=sharey)
    for axes, panel in zip(axes_rows.flat, picture.panels):
        axes.grid(alpha=0.3)
        panel.draw(axes)
        axes.set_title(panel.title, fontsize="medium")  # Else long ones are cut.
        if picture.shares_y:
            axes.label_outer()
    if picture.styles:
        entries = figure.axes[0].get_legend_handles_labels()
        figure.legend(*entries, loc="outside lower center", ncols=6, frameon=False)
    return figure


def panel_svg(picture: Picture, panel: Panel) -> Markup:
    """Returns a panel as SVG for a page; the same panel gives the same text."""
    width, height = _WIDTH, picture.panel_inches[1] - 0.2  # There the title takes some.
    with matplotlib.rc_context({**_SVG, "svg.hashsalt": f"{picture.name} {panel.title}"}):
        figure = Figure(figsize=(width, height))
        axes = figure.subplots()
        axes.grid(alpha=0.3)
        panel.draw(axes)
        # A layout engine would draw everything twice more to find this.
        ticks = axes.yaxis.get_major_formatter().format_ticks(axes.get_yticks())
        left = 0.2 + _LETTER * max(map(len, ticks)) + (0.25 if axes.get_ylabel() else 0.0)
        bottom = 0.52 + 0.15 * _num_lines(axes) - 0.15
        figure.subplots_adjust(
            left=left / width, bottom=bottom / height, right=1 - 0.2 / width, top=1 - 0.1 / height
        )
        return _svg(figure, label=f"{panel.title}. {picture.alt}")


def _num_lines(axes: Axes) -> int:
    return max(label.get_text().count("\n") + 1 for label in axes.get_xticklabels())


def legend_key(name: str, style: Mapping[str, object]) -> Markup:
    """Returns the line and marker of an entry of a legend as SVG."""
    with matplotlib.rc_context({**_SVG, "svg.hashsalt": f"legend {name}"}):
        figure = Figure(figsize=(0.36, 0.18))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.plot([0, 0.5, 1], [0, 0, 0], **{**style, "markevery": [1], "markersize": 6})
        axes.set(xlim=(0, 1), ylim=(-1, 1))
        return _svg(figure, label=None)


def _svg(figure: Figure, label: str | None) -> Markup:
    """Returns a figure as an `<svg>` of a page; without a label it is decoration."""
    file = io.StringIO()
    figure.savefig(
        file,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    # Ids that nothing points to would come twice on a page of several pictures.
    used = set(re.findall(r"#([\w.-]+)", text))
    text = _ID.sub(lambda found: found[0] if found[1] in used else "", text)
    for color, adapted in _ADAPTED.items():
        text = re.sub(color, adapted, text, flags=re.IGNORECASE)
    text = re.sub(r'<svg ([^>]*?)(?:width|height)="[\d.]+pt" ', r"<svg \1", text)
    text = re.sub(r'<svg ([^>]*?)(?:width|height)="[\d.]+pt" ', r"<svg \1", text)
    head, _, body = text.partition(">")
    if label is None:
        return Markup(f'{head} aria-hidden="true" focusable="false">{body}')
    title = f"<title>{escape(label)}</title>"
    return Markup(f'{head} role="img" aria-label="{escape(label)}">{title}{body}')
