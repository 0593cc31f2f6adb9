"""A small picture of the losses of a run, drawn with characters."""

import math
from collections.abc import Iterator
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

# The dots of a character: those of braille, whose code is U+2800 and their sum, or one where there is ASCII alone.
BRAILLE, ASCII = np.array([[1, 8], [2, 16], [4, 32], [64, 128]]), np.array([[1]])
MAX_LINES, MIN_CONSOLE_LINES, MIN_WIDTH = 8, 16, 40
MAX_POINTS = 512
TRAIN, VAL, AXIS = Style(color="cyan"), Style(color="magenta", bold=True), Style(dim=True)


class LossCurve:
    """The training loss as a line and validation losses as dots, over the steps of the run, for a console of rich.

    Nothing is drawn before there are two training losses, and on a console of few lines. The first tenth of the steps
    so far may be above the picture, since a loss falls fast at first.

    Args:
        first, last: the steps at both ends of the picture.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, max(last, first + 1)
        self.train: list[tuple[float, float]] = []
        self.val: list[tuple[float, float]] = []
        self._drawn: dict[tuple[int, int, bool], list[Segment]] = {}  # the newest picture, by its size

    def add(self, step: int, loss: float | None) -> None:
        """Add a training loss, unless it is the one before."""
        if loss is None or not math.isfinite(loss) or (self.train and loss == self.train[-1][1]):
            return
        self.train.append((step, loss))
        if len(self.train) == MAX_POINTS:  # more than can be told apart: neighbors become their mean
            self.train = np.array(self.train).reshape(-1, 2, 2).mean(axis=1).tolist()
        self._drawn.clear()

    def add_val(self, step: int, loss: float) -> None:
        """Add a validation loss."""
        if math.isfinite(loss):
            self.val.append((step, loss))
            self._drawn.clear()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if len(self.train) < 2 or console.height < MIN_CONSOLE_LINES or options.max_width < MIN_WIDTH:
            return
        size = (min(MAX_LINES, console.height // 3), options.max_width - 1, options.ascii_only)
        if size not in self._drawn:
            self._drawn = {size: list(self._draw(*size))}
        yield from self._drawn[size]

    def _draw(self, height: int, width: int, ascii_only: bool) -> Iterator[Segment]:
        """All lines: those of the picture, then one that names what is above it."""
        early = self.first + (self.train[-1][0] - self.first) / 10
        losses = [loss for step, loss in (*self.train, *self.val) if step >= early]
        low, high = min(losses), max(losses)
        labels = [f"{high:.3g}", *[""] * (height - 3), f"{low:.3g}"]
        margin = max(map(len, labels)) + 2
        cells = self._cells(low, high, height - 1, width - margin, ascii_only)
        edge, dot = ("|", "o") if ascii_only else ("│", "●")
        for label, row in zip(labels, cells, strict=True):
            yield Segment(f"{label:>{margin - 2}} {edge}", AXIS)
            yield from (Segment("".join(run), VAL if is_val else TRAIN) for is_val, run in groupby(row, dot.__eq__))
            yield Segment.line()
        legend = f"train {self.train[-1][1]:.3f}" + (f"   {dot} val {self.val[-1][1]:.4f}" if self.val else "")
        ends = f"{self.first:,}", f"{self.last:,} steps"
        yield Segment(f"{'':{margin}}{ends[0]}{legend:^{width - margin - len(ends[0]) - len(ends[1])}}{ends[1]}", AXIS)
        yield Segment.line()

    def _cells(self, low: float, high: float, height: int, width: int, ascii_only: bool) -> list[list[str]]:
        """The characters of the picture, line by line from the top."""
        bits = ASCII if ascii_only else BRAILLE
        dots = self._dots(low, high, height * bits.shape[0], width * bits.shape[1])
        sums = (dots.reshape(height, bits.shape[0], width, bits.shape[1]) * bits[:, None, :]).sum(axis=(1, 3))
        cells = [[" " if n == 0 else "*" if ascii_only else chr(0x2800 + n) for n in row] for row in sums.tolist()]
        for step, loss in self.val:
            if loss <= high:
                column = round((step - self.first) / (self.last - self.first) * (width - 1))
                cells[round(level(loss, low, high, height))][column] = "o" if ascii_only else "●"
        return cells

    def _dots(self, low: float, high: float, height: int, width: int) -> NDArray[np.bool_]:
        """Where the line of the training losses is, [height, width]."""
        steps, losses = np.array(self.train).T
        columns = self.first + (self.last - self.first) * np.arange(width) / (width - 1)
        losses = np.interp(columns, steps, losses, left=math.inf, right=math.inf)
        dots = np.zeros((height, width), dtype=bool)
        before = None
        for column, loss in enumerate(losses):
            row = round(level(loss, low, high, height)) if loss <= high else None
            if row is not None:
                start, end = sorted((row, row if before is None else before))
                dots[start : end + 1, column] = True
            before = row
        return dots


def level(loss: float, low: float, high: float, height: int) -> float:
    """The distance from the top of a picture that has so many lines from `high` to `low`."""
    return (high - loss) / max(high - low, 1e-9) * (height - 1)
