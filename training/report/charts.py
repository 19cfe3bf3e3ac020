"""Charts of a report, as SVG in the colours of the page's theme, and the format of its numbers."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Placeholders: the SVG's colours are replaced by CSS variables of the page's light or dark theme.
INK, MUTED, LINE, BLUE, ORANGE, PALE, CARD = (f"#00000{i}" for i in range(1, 8))
THEME = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    PALE: "var(--pale)",
    CARD: "var(--card)",
}


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty chart, its size in inches, in the colours of the theme."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.patch.set_visible(False)
    axes.tick_params(colors=MUTED, labelsize=9, length=3)
    axes.spines[:].set_color(LINE)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def to_svg(figure: Figure, description: str) -> Markup:
    """The figure as markup for the page, in the colours of the theme."""
    file = io.StringIO()
    # Text stays text: sharp at any zoom, in the page's font, and searchable.
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": description}
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(settings), missing_glyphs_allowed():
        figure.savefig(
            file,
            format="svg",
            transparent=True,
            bbox_inches="tight",
            pad_inches=0.04,
            metadata=nothing,
        )
    markup = file.getvalue()
    markup = markup[markup.index("<svg") :]
    width, height = map(float, re.findall(r' (?:width|height)="([\d.]+)pt"', markup)[:2])
    markup = re.sub("<svg[^>]*>", "", markup, count=1)
    markup = re.sub('<g id="[^"]*"', "<g", markup)
    markup = re.sub("(?<=: )#00000[1-7]", lambda match: THEME[match[0]], markup)
    opening = Markup(
        '<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {}" '
        'style="max-width: {:.0f}px">'
    )
    # At this width letters are about as large as those of the page.
    return opening.format(description, width, height, 1.6 * width) + Markup(markup)


@contextlib.contextmanager
def missing_glyphs_allowed() -> Iterator[None]:
    """No warning for letters that matplotlib's font lacks, such as emoji in a class name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        yield


# Numbers for people


def percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"


def points(points: float) -> str:
    return f"{points:+.2f}".replace("-", "−") if round(points, 2) else "0.00"


def thread_word(count: int) -> str:
    return "thread" if count == 1 else "threads"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.{2 if value >= 1 else 3}f} ms"


def significant(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
