"""The chart of an evaluation: quality against the bytes of a document, on a logarithmic axis.

The sizes of single vectors make a line, multi-vectors a point; bars are the 95 % intervals. Each
point is named where its name covers no other name and no bar. Qualities lie close together, so the
axis is of what there is and need not begin at 0.
"""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from pipeline.index.evaluate import Result

MEASURE = "ndcg@10"
_COLOURS = {"single": "#2f6f8f", "multi": "#c8553d"}
_INK = "#444444"
_SPAN, _ROOM = 0.02, 0.15
"""What the axis shows at least, and the share of it that is left free at either end."""
_UNITS = ("B", "KiB", "MiB", "GiB")
_GAP = 7.0
"""Points between a marker and its name."""
_PLACES: tuple[tuple[int, int, str, str], ...] = (
    (0, 1, "center", "bottom"),
    (0, -1, "center", "top"),
    (1, 0, "left", "center"),
    (-1, 0, "right", "center"),
    (1, 1, "left", "bottom"),
    (-1, 1, "right", "bottom"),
    (1, -1, "left", "top"),
    (-1, -1, "right", "top"),
)
"""Where a name may stand, beside its bar; the first that is free is taken."""


def drawn(results: Sequence[Result], title: str) -> bytes:
    """The chart as a PNG."""
    file = io.BytesIO()
    chart(results, title).savefig(file, format="png", dpi=150)
    return file.getvalue()


def chart(results: Sequence[Result], title: str) -> Figure:
    """The figure.

    Args:
        results: at least one.
        title: what was asked of what.
    """
    edges = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(8, 4.8), layout=edges)
    axes = figure.subplots()
    for vectors, marker in (("single", "o"), ("multi", "D")):
        some = [result for result in results if result.vectors == vectors]
        if some:
            _plot(axes, some, _COLOURS[vectors], marker)
    _scale(axes, results)
    axes.set_title(title, loc="left", fontsize=9, color=_INK)
    axes.set_xlabel("bytes of a document's vectors, on a logarithmic axis")
    axes.set_ylabel("nDCG@10, with 95 % intervals")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _name(figure, axes, results)
    return figure


def _plot(axes: Axes, results: Sequence[Result], colour: str, marker: str) -> None:
    measured = [result.measures[MEASURE] for result in results]
    below = [max(0.0, one.mean - one.low) for one in measured]
    above = [max(0.0, one.high - one.mean) for one in measured]
    axes.errorbar(
        [result.bytes_per_document for result in results],
        [one.mean for one in measured],
        yerr=(below, above),
        color=colour,
        marker=marker,
        markersize=5.5,
        linewidth=1.6,
        elinewidth=1.1,
        capsize=3,
        # what lies on an edge is seen whole
        clip_on=False,
    )


def _scale(axes: Axes, results: Sequence[Result]) -> None:
    """Axes that hold all bars and have room for names, also where every value is 0."""
    measured = [result.measures[MEASURE] for result in results]
    low, high = min(one.low for one in measured), max(one.high for one in measured)
    middle, half = (low + high) / 2, max(high - low, _SPAN) / 2
    room = 2 * _ROOM * half
    axes.set_ylim(max(0.0, middle - half - room), min(1.0, middle + half) + room)
    sizes = [result.bytes_per_document for result in results]
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(sizes) / 1.8, max(sizes) * 1.8)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: in_bytes(size)))


def in_bytes(size: float) -> str:
    """A number of bytes, in the largest unit that leaves 1 or more."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"


def _name(figure: Figure, axes: Axes, results: Sequence[Result]) -> None:
    """Name each point in the first place that is free."""
    # where things are is known once the layout has been computed
    figure.draw_without_rendering()
    taken = [_bar(axes, result) for result in results]
    for result in results:
        for place in _PLACES:
            name = _placed(axes, result, place)
            box = name.get_window_extent()
            inside = axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1 and box.x1 <= figure.bbox.x1
            if place is _PLACES[-1] or (inside and not any(box.overlaps(one) for one in taken)):
                taken.append(box)
                break
            name.remove()


def _bar(axes: Axes, result: Result) -> Bbox:
    """What a point and its interval cover, in pixels."""
    measured, size = result.measures[MEASURE], result.bytes_per_document
    ends = axes.transData.transform([(size, measured.low), (size, measured.high)])
    return Bbox([ends[0] - 4, ends[1] + 4])


def _placed(axes: Axes, result: Result, place: tuple[int, int, str, str]) -> Annotation:
    right, up, horizontal, vertical = place
    measured = result.measures[MEASURE]
    return axes.annotate(
        f"{result.vectors} {result.dim}",
        xy=(result.bytes_per_document, (measured.mean, measured.high, measured.low)[up]),
        xytext=(right * _GAP, up * _GAP),
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
        fontsize=8,
        color=_COLOURS[result.vectors],
    )
