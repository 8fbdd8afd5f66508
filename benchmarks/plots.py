# SPDX-License-Identifier: Apache-2.0
"""Pictures of what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from .figures import Samples
from .hosts import EVERYBODY, LAUNCHERS, OURS
from .results import Results
from .rows import drain, launch_blocked, launch_to_running, memory, thousand
from .table import COLUMNS

COLOURS = {
    "ours": "#0b6e4f",
    "lmcache": "#c1442e",
    "supervisord": "#5b6c8f",
    "circus": "#b08900",
    "honcho": "#8a5a9e",
}
SIZE = (6.4, 4.0)
DPI = 110

Point = tuple[float, float, float, float]
"""Number of plugins, median, quartiles."""


def draw(results: Results, directory: Path) -> None:
    """Draw what was measured; each picture is one PNG.

    Args:
        results: Rows that are missing there are left out.
        directory: Made if it is not there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, tuple[str, Callable[[Results], Any]]] = {
        "launch-blocked": (launch_blocked.ROW.name, _blocked),
        "launch-to-running": (launch_to_running.ROW.name, _running),
        "memory": (memory.ROW.name, _memory),
        "throughput": (drain.ROW.name, _throughput),
        "thousand": (thousand.ROW.name, _thousand),
    }
    for name, (row, make) in pictures.items():
        if row in results:
            figure = make(results)
            figure.tight_layout()
            # Without the program's version, a picture changes only if a figure does.
            figure.savefig(
                directory / f"performance-{name}.png", dpi=DPI, metadata={"Software": None}
            )
            plt.close(figure)


def points(samples: Samples, counts: Iterable[int], *before: object) -> list[Point]:
    """Return what was measured of a figure by number of plugins.

    Args:
        samples: Of a row.
        counts: Numbers of plugins, the last part of the key.
        before: The parts before it.
    """
    return [
        (count, samples.median(*before, count), *samples.quartiles(*before, count))
        for count in counts
        if samples.of(*before, count)
    ]


def _axes(title: str, unit: str) -> tuple[Any, Any]:
    figure, axes = plt.subplots(figsize=SIZE)
    _dress(axes, title, unit)
    return figure, axes


def _dress(axes: Any, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("plugins")
    axes.set_ylabel(unit)
    axes.grid(visible=True, which="major", alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _line(axes: Any, name: str, found: Sequence[Point], label: str, style: str = "-") -> None:
    if not found:
        return
    x, middle, low, high = zip(*found, strict=True)
    width = 2.2 if name == OURS else 1.4
    axes.plot(
        x, middle, style, marker="o", markersize=4, color=COLOURS[name], lw=width, label=label
    )
    axes.fill_between(x, low, high, color=COLOURS[name], alpha=0.15, lw=0)


def _logarithmic(axes: Any) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.legend(frameon=False, fontsize=9)


def _blocked(results: Results) -> Any:
    samples = results.samples(launch_blocked.ROW.name)
    figure, axes = _axes("Engine blocked by launch_plugins()", "ms")
    for name in LAUNCHERS:
        for heap, style in zip(launch_blocked.HEAPS, ("-", "--"), strict=True):
            found = points(samples, launch_blocked.COUNTS, name, heap)
            _line(axes, name, found, f"{COLUMNS[name]}, {heap} heap", style)
    _logarithmic(axes)
    return figure


def _running(results: Results) -> Any:
    samples = results.samples(launch_to_running.ROW.name)
    figure, axes = _axes("From launch until all plugins run", "ms")
    for name in EVERYBODY:
        found = points(samples, launch_to_running.COUNTS, name)
        if thousand.ROW.name in results:
            more = [count for count in thousand.COUNTS if count > launch_to_running.MOST]
            found += points(results.samples(thousand.ROW.name), more, name, "running")
        _line(axes, name, found, COLUMNS[name])
    _logarithmic(axes)
    return figure


def _memory(results: Results) -> Any:
    samples = results.samples(memory.ROW.name)
    figure, axes = _axes("Memory added, beside engine and plugins", "MB")
    for name in EVERYBODY:
        found = points(samples, (*memory.COUNTS, memory.MANY), name)
        _line(axes, name, found, COLUMNS[name])
    _logarithmic(axes)
    return figure


def _throughput(results: Results) -> Any:
    samples = results.samples(drain.ROW.name)
    figure, axes = plt.subplots(figsize=(SIZE[0], 2.8))
    names = [name for name in EVERYBODY if samples.of(name, "lines/s")][::-1]
    values = [samples.median(name, "lines/s") / 1000 for name in names]
    raw = ("supervisord", "circus")
    labels = [COLUMNS[name] + (" (raw copy)" if name in raw else "") for name in names]
    bars = axes.barh(
        labels,
        values,
        color=[COLOURS[name] for name in names],
        alpha=1.0,
        hatch=["//" if name in raw else "" for name in names],
        edgecolor="white",
    )
    axes.bar_label(bars, labels=[f"{value:,.0f}" for value in values], padding=4, fontsize=9)
    axes.set_title("Lines of 100 bytes logged, thousands in a second", fontsize=11)
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_xlim(right=max(values) * 1.12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _thousand(results: Results) -> Any:
    samples = results.samples(thousand.ROW.name)
    figure, panels = plt.subplots(1, 3, figsize=(10.5, 3.4))
    for axes, (part, title) in zip(panels, thousand.FIGURES.items(), strict=True):
        _dress(axes, title, "MB" if part == "memory" else "ms")
        for name in LAUNCHERS:
            _line(axes, name, points(samples, thousand.COUNTS, name, part), COLUMNS[name])
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:,g}")
    panels[0].legend(frameon=False, fontsize=9)
    return figure
