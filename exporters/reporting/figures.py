"""Plots as SVG to stand in a page: narrow, for a phone, and in the page's own colours.

matplotlib draws. Text stays text, colours become the page's variables, so that plots are
readable in light and dark; and marks that stand for figures are in groups that say, in
`data-at`, where in the page's JSON these are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import re
import xml.sax.saxutils
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--rule)",
    "#040404": "var(--first)",
    "#050505": "var(--second)",
    "#060606": "var(--bad)",
}
"""What is told to matplotlib -> the page's."""
INK, MUTED, RULE, FIRST, SECOND, BAD = _COLOURS
SERIES = FIRST, SECOND
_WIDTH = 4.4
"""In inches of 72 units; a phone shows them almost one by one."""
_ROW = 0.19
_LONGEST = 28
"""Of the labels of rows, in letters."""
_AROUND = 0.75
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "irv2",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
}


@dataclasses.dataclass(frozen=True)
class Series:
    """Values of some rows.

    Attributes:
      name: for the legend; empty for none.
      values: one a row; None where there is none.
      places: where each value is in the page's JSON, as a JSON pointer.
    """

    name: str
    values: Sequence[float | None]
    places: Sequence[str]

    def only(self, rows: Sequence[int]) -> Series:
        """Returns the values of some of the rows."""
        return Series(
            self.name,
            [self.values[row] for row in rows],
            [self.places[row] for row in rows],
        )


def rows(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    mark: str = "",
    is_log: bool = False,
    least: float = 0.0,
    as_bars: bool = False,
    as_percent: bool = False,
) -> str:
    """Draws values of rows, one below the other.

    Args:
      title: what the values are.
      labels: of the rows, from top to bottom.
      series: one or two.
      mark: drawn on each plot, such as "STAND-IN".
      is_log: whether the axis is logarithmic.
      least: what smaller values are drawn as, where it is.
      as_bars: whether values are bars from 0.
      as_percent: whether values are percentages.
    """

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for number, each in enumerate(series):
            shift = (number - (len(series) - 1) / 2) * 0.3
            colour = SERIES[number]
            named = False
            for row, (value, place) in enumerate(zip(each.values, each.places)):
                if value is None:
                    continue
                value = max(value, least)
                label = "" if named else each.name
                if as_bars:
                    axes.barh(
                        row + shift,
                        value,
                        0.62 / len(series),
                        color=colour,
                        label=label,
                        gid=_gid(place),
                    )
                else:
                    axes.plot(
                        [value],
                        [row + shift],
                        "oD"[number],
                        color=colour,
                        label=label,
                        gid=_gid(place),
                    )
                named = True
        axes.set_yticks(range(len(labels)), [_shortened(label) for label in labels])
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.tick_params("y", length=0)
        axes.grid(axis="y", visible=False)
        if is_log:
            _make_logarithmic(axes)
        if as_percent:
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:.4g} %")

    return _svg(
        title,
        _AROUND + 0.1 + _ROW * len(labels) * (1 + 0.25 * (len(series) > 1)),
        draw,
        mark,
        has_legend=len(series) > 1,
    )


def depth(
    title: str,
    labels: Sequence[str],
    accumulated: Series,
    own: Series,
    limits: tuple[float, float],
    *,
    mark: str = "",
) -> str:
    """Draws errors from the first layer, at the top, to the last.

    Args:
      title: what the errors are of.
      labels: of the layers.
      accumulated: errors up to each layer.
      own: errors that each section adds.
      limits: of the errors that are drawn.
      mark: drawn on the plot, such as "STAND-IN".
    """

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import LogLocator

        for each, colour, style in ((accumulated, FIRST, "-o"), (own, SECOND, "D")):
            axes.plot(
                [
                    value if value and value >= limits[0] else math.nan
                    for value in each.values
                ],
                range(len(labels)),
                style,
                color=colour,
                label=each.name,
                markersize=3.5,
                gid=_gid(each.places[0]),
            )
        _make_logarithmic(axes)
        few = limits[1] < 300 * limits[0]
        axes.xaxis.set_major_locator(
            LogLocator(subs=(1, 3) if few else (1,), numticks=9)
        )
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.set_xlim(limits[0] / 1.25, limits[1] * 1.25)
        axes.set_yticks(range(len(labels)), labels, fontsize=8)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.tick_params("y", length=0)
        axes.grid(axis="y", visible=False)

    return _svg(title, _AROUND + 0.155 * len(labels), draw, mark, has_legend=True)


def scatter(
    title: str, pairs: Sequence[Sequence[float]], place: str, *, mark: str = ""
) -> str:
    """Draws numbers of an artifact against those of TF-Slim's network."""

    def draw(axes: Axes) -> None:
        expected, found = zip(*pairs)
        limits = min(*expected, *found), max(*expected, *found)
        axes.plot(limits, limits, "-", color=MUTED, linewidth=0.8)
        axes.plot(
            expected,
            found,
            "o",
            color=FIRST,
            alpha=0.6,
            markersize=3,
            markeredgewidth=0,
            gid=_gid(place),
        )
        axes.set_xlabel("TF-Slim")
        axes.set_ylabel("the artifact")

    return _svg(title, 3.2, draw, mark)


def histogram(
    title: str,
    counts: Sequence[int],
    edges: Sequence[float],
    place: str,
    *,
    mark: str = "",
) -> str:
    """Draws how often numbers are how far off."""

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import NullLocator

        axes.stairs(
            [max(count, 0.5) for count in counts],
            [100 * edge for edge in edges],
            baseline=0.5,
            fill=True,
            color=FIRST,
            gid=_gid(place),
        )
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("error, % of the largest magnitude")
        axes.set_ylabel("numbers")
        axes.grid(axis="x", visible=False)

    return _svg(title, 2.6, draw, mark)


def _make_logarithmic(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    subs = (1, 2, 5) if high < 100 * low else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.2g}".replace("e-0", "e-"))


def _shortened(label: str) -> str:
    """Returns a label that leaves room for a plot, both ends of a long one."""
    if len(label) <= _LONGEST:
        return label
    return f"{label[: _LONGEST // 2 - 2]}...{label[-_LONGEST // 2 :]}"


def _gid(place: str) -> str:
    return f"at-{place}"


def _svg(
    title: str,
    height: float,
    draw: Callable[[Axes], None],
    mark: str,
    *,
    has_legend: bool = False,
) -> str:
    """Draws one plot, and returns it as an SVG element."""
    from matplotlib.figure import Figure

    with _style():
        figure = Figure((_WIDTH, height), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        if has_legend:
            figure.legend(
                loc="outside upper left", ncols=2, handletextpad=0.3, columnspacing=1
            )
        if mark:
            figure.text(
                0.5,
                0.5,
                mark,
                color=BAD,
                alpha=0.35,
                fontsize=30,
                fontweight="bold",
                rotation=24,
                ha="center",
                va="center",
            )
        return _in_page(figure, f"{mark} {title}".strip())


@contextlib.contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    settings: dict[Any, Any] = {**_STYLE}
    with matplotlib.rc_context(settings):
        yield


def _in_page(figure: Figure, title: str) -> str:
    """Returns a figure's SVG without what belongs to a file, in the page's colours."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    for element in ("metadata", "style"):
        pattern = rf"<{element}\b.*?</{element}>\s*"
        text = re.sub(pattern, "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    # The same names are in every figure: they would be those of the first.
    text = re.sub(r'<g id="(?!at-)[^"]*">', "<g>", text)
    text = re.sub(r'<g id="at-([^"]*)">', r'<g data-at="\1">', text)
    names = dict.fromkeys(re.findall(r' id="([^"]+)"', text))
    for name in names:
        own = f"f{zlib.crc32(f'{title} {name}'.encode()):x}"
        pattern = rf'(id="|href="#|url\(#){re.escape(name)}(?=["\)])'
        text = re.sub(pattern, rf"\g<1>{own}", text)
    for told, shown in _COLOURS.items():
        text = text.replace(told, shown)
    escaped = xml.sax.saxutils.quoteattr(title)
    return text.replace("<svg", f'<svg role="img" aria-label={escaped}', 1)
