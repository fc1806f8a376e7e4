"""Dot plots: one row a name, a dot with its 95 % interval, against a row that all are compared with."""

from collections.abc import Mapping

from matplotlib.axes import Axes

from ..evaluate.figures import FONT, INK, PALETTE
from ..evaluate.statistics import Estimate


def dots(
    axes: Axes, estimates: Mapping[str, Estimate | None], *, base: str | None = None, index: int = 0, shift: float = 0.0
) -> None:
    """Draw a dot and a whisker a name, from the top; a band marks the interval of `base`, a cross what is None.

    `index` chooses colour and fill, `shift` moves the dots between rows where several sets share a panel.
    """
    for row, estimate in enumerate(estimates.values()):
        if estimate is None:
            left = axes.get_yaxis_transform()
            axes.plot([0.02], [row + shift], "x", color=PALETTE[4], markersize=6, transform=left, clip_on=False)
            continue
        # On a log axis an interval that reaches zero or less ends a decade below its dot.
        low = max(estimate.low, estimate.value / 10) if axes.get_xscale() == "log" else estimate.low
        axes.errorbar(
            [estimate.value],
            [row + shift],
            xerr=[[estimate.value - low], [estimate.high - estimate.value]],
            fmt="o",
            color=PALETTE[index],
            markerfacecolor=PALETTE[index] if index % 2 == 0 else "white",
            markersize=5,
            capsize=3,
            linewidth=1.3,
        )
    reference = estimates.get(base) if base else None
    if reference is not None:
        low = max(reference.low, reference.value / 10) if axes.get_xscale() == "log" else reference.low
        axes.axvspan(low, reference.high, color=INK, alpha=0.08, linewidth=0)
        axes.set_xlabel(f"band: interval of {base}", fontsize=FONT, color=INK)
    axes.set_yticks(range(len(estimates)), list(estimates))
    axes.set_ylim(len(estimates) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
