"""The result as a picture: the rate of each mix, and how much of the device's own limit that is."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from pipeline.benchmark.measure import Measurement

_BAR, _BEST = "#2f6f8f", "#d9d9d9"


def draw(measurement: Measurement, file: Path) -> None:
    """Write a PNG."""
    mixes = measurement.mixes[::-1]
    figure = Figure(figsize=(11, 1.4 + 0.55 * len(mixes)), layout="constrained")
    rates, shares = figure.subplots(1, 2, sharey=True)
    names = [mix.name for mix in mixes]
    tokens = [mix.tokens_per_second for mix in mixes]
    bars = rates.barh(names, tokens, color=_BAR)
    labels = [
        f"{mix.tokens_per_second:,.0f} ({mix.items_per_second:,.1f} items/s)" for mix in mixes
    ]
    rates.bar_label(bars, labels=labels, padding=4, fontsize=8)
    rates.set_xlim(0, max(tokens) * 1.6)
    rates.xaxis.set_major_locator(MaxNLocator(4))
    rates.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    rates.set_xlabel("tokens each second")
    shares.barh(names, [100.0] * len(mixes), color=_BEST)
    filled = shares.barh(names, [100 * mix.ceiling_share for mix in mixes], color=_BAR)
    shares.bar_label(filled, fmt="%.0f %%", padding=4, fontsize=8)
    shares.set_xlim(0, 100)
    ceiling = measurement.ceilings.flops_per_second / 1e12
    shares.set_xlabel(f"% of this device's matrix products ({ceiling:,.2f} TFLOP/s)")
    figure.suptitle(
        f"{measurement.device}, {measurement.dtype}, token budget {measurement.token_budget:,}",
        fontsize=10,
    )
    for axes in (rates, shares):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)
