# SPDX-License-Identifier: Apache-2.0
"""What a completion of real vLLM takes, with the adapter off and on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figures import Sample, Samples, median, quantile
from benchmarks.installation import ROOT
from benchmarks.processes import MARK, LateError, end_marked
from benchmarks.row import Row, SkipError
from benchmarks.table import Line, Target, number

PYTHON = ROOT / ".venv-real" / "bin" / "python"
MODEL = ROOT / ".venv-real" / "ring" / "model"
PROGRAM = Path(__file__).parents[1] / "serving.py"
ROUNDS = 24
SECONDS = 1200.0
ON = ("beside", "on, quiet", "on")
TITLES = {
    "off again": "off, once more (the noise)",
    "beside": "off, the plugin beside it, writing to `/dev/null`",
    "on, quiet": "on, the plugin stopped",
    "on": "on, the plugin prints",
}

HOW = (
    "Two servers of vLLM 0.32 with LMCache 0.5.6 on the CPU with a model of 1 MB, one without "
    "plugins and with the adapter's entry point off, one with a plugin that prints 1,000 lines "
    f"of 100 bytes a second. {ROUNDS} rounds. In each the conditions take turns, two completions "
    "of 16 tokens at a time, eight times: their latency is the median. Then four clients at once, "
    "two completions each, four times: the tokens a second. The plugin is stopped while it is not "
    "its turn. Figures are in % of the same round's `off`; noise is the range in which half of "
    "the rounds put `off` against itself."
)


def measure(bench: Bench) -> Sample:
    """Serve with both; return all rounds' figures in % of ``off``, and their spread."""
    if not PYTHON.exists():
        raise SkipError("no real vLLM here: 'tests/real_engine/ring' installs it")
    mark = f"{bench.mark}-serving"
    process = subprocess.Popen(
        [str(PYTHON), str(PROGRAM), str(bench.directory()), str(MODEL), str(ROUNDS)],
        stdout=subprocess.PIPE,
        env={**os.environ, MARK: mark},
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise LateError(f"not served within {SECONDS:g} s") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        end_marked(mark)
    if process.returncode:
        raise LateError(f"'{PROGRAM.name}' exited with code {process.returncode}")
    return compared([json.loads(line) for line in output.splitlines()])


def compared(rounds: Sequence[Sample]) -> Sample:
    """Return the medians of ``off``, the others in % of it, and the noise.

    Args:
        rounds: Figures by condition.
    """
    found = {}
    for figure in ("latency", "throughput"):
        found[f"off/{figure}"] = median([one[f"off/{figure}"] for one in rounds])
        for condition in TITLES:
            shares = [one[f"{condition}/{figure}"] / one[f"off/{figure}"] * 100 for one in rounds]
            found[f"{condition}/{figure}"] = median(shares)
            found[f"{condition}/{figure}/low"] = quantile(shares, 0.25)
            found[f"{condition}/{figure}/high"] = quantile(shares, 0.75)
    return found


def lines(samples: Samples) -> Sequence[Line]:
    """Return latency and throughput by condition."""
    found = []
    for figure, unit in (("latency", "ms"), ("throughput", "tokens/s")):
        cells = {"ours": f"{number(samples.median('off', figure))} {unit}"}
        found.append(Line(f"{figure}, off", cells))
        low = samples.median("off again", figure, "low")
        high = samples.median("off again", figure, "high")
        for condition, title in TITLES.items():
            value = samples.median(condition, figure)
            spread = (
                samples.median(condition, figure, "low"),
                samples.median(condition, figure, "high"),
            )
            target = None
            if condition == "on":
                # Only what is worse than the noise counts against it.
                text = f"within the noise, {number(low)}–{number(high)}"
                worse_is_more = figure == "latency"
                limit = high if worse_is_more else low
                target = Target(
                    f"completion's {figure} with the adapter on, % of off",
                    text,
                    value,
                    limit,
                    at_least=not worse_is_more,
                )
            cell = f"{number(value)} ({number(spread[0])}–{number(spread[1])})"
            found.append(Line(f"… {title}, %", {"ours": cell}, target))
    return found


ROW = Row("completion", "A completion on real vLLM", HOW, 1, measure, lines)
