"""The model of the best run, from its checkpoint. The one part of a report that needs torch, which is imported here."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import altair as alt

from minigpt.deferred_imports import defer_imports
from minigpt.report.analysis import Table, show
from minigpt.report.attention_maps import AttentionMap, map_heads
from minigpt.report.figures import HEIGHT, Figure, finish
from minigpt.report.sources import ReportedRun
from minigpt.runs.directory import find_checkpoint
from minigpt.runs.untrusted import first_line

if TYPE_CHECKING:
    from minigpt.inference.model_analysis import ModelAnalysis

NUM_BARS, NUM_ROWS = 24, 10
MAX_CONTEXT = 12  # characters of a prompt's part that are shown
BIN_GROWTH = 1.15  # ratio of the ends of two bins of positions
VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


@dataclass(frozen=True)
class PredictionRow:
    """What the model expects after a part of the prompt, as text; see `minigpt.inference.model_analysis.Prediction`."""

    context: str
    actual: str
    probability: float
    rank: int
    candidates: list[tuple[str, float]]


@dataclass
class ModelSection:
    """What the page shows of a model; what does not apply to it is empty.

    Attributes:
        step: optimizer steps that the model was trained for.
        unit: character or token.
        prompt: the tokens of the prompt.
        layers: the attention maps of each layer.
        predictions: for each part of the prompt.
        characters: length of the beginning of the validation split that the losses are of; 0 for none.
        figures: loss by position and by token.
        tables: the tokens that cost most.
    """

    step: int
    unit: str
    prompt: list[str]
    layers: list[list[AttentionMap]]
    predictions: list[PredictionRow]
    characters: int
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    @property
    def heads(self) -> Table:
        """The attention maps as a table."""
        columns = ["head", "on the token before", "on itself", "on the first token", "mean distance [tokens]"]
        rows = [
            [
                f"{m.layer}.{m.head}",
                f"{m.to_previous:.0%}",
                f"{m.to_self:.0%}",
                f"{m.to_first:.0%}",
                f"{m.distance:.1f}",
            ]
            for layer in self.layers
            for m in layer
        ]
        return Table(
            "Where each head (layer.head) looks: mean attention weights from the second token on", columns, rows
        )


def show_model(run: ReportedRun, data_dir: str, trusted: frozenset[str]) -> ModelSection | None:
    """Return what the page shows of a run's best model; what cannot be shown is a problem of the run.

    Args:
        run: the run; its problems are added to.
        data_dir: directory of the texts.
        trusted: classes outside of miniGPT that the user has named.
    """
    try:
        path = find_checkpoint(str(run.directory), Path())
        if "torch" not in sys.modules:  # it takes seconds to import: only here, where there is a model to look at
            defer_imports()
        from minigpt.inference.load import load_model
        from minigpt.inference.model_analysis import analyze_model

        analysis = analyze_model(load_model(path, trusted), data_dir)
        section = describe_model(analysis)
    except Exception as error:  # a model from outside of miniGPT may raise anything; a report is more than its model
        run.problems.append(f"without attention, predictions and losses by character: {first_line(error)}")
        return None
    if analysis.problem:
        run.problems.append(f"without losses by position and by {analysis.unit}: {analysis.problem}")
    return section


def describe_model(analysis: "ModelAnalysis") -> ModelSection:
    """Return what the page shows of an analysis."""
    texts = [visible(token) for token in analysis.tokens]

    def text(token: int) -> str:
        return texts[token] if token < len(texts) else "[special]"

    prompt = [text(token) for token in analysis.prompt]
    section = ModelSection(
        step=analysis.step,
        unit=analysis.unit,
        prompt=prompt,
        layers=map_heads(analysis.attention),
        predictions=[
            PredictionRow(shorten("".join(prompt[: p.length])), text(p.actual), p.probability, p.rank, candidates)
            for p in analysis.predictions
            for candidates in [[(text(token), probability) for token, probability in p.candidates]]
        ],
        characters=analysis.characters,
    )
    if analysis.scores is not None:
        losses, _, _, counts = analysis.scores.by_token.table.tolist()
        tokens = rank_tokens(losses, counts, texts)
        losses, _, _, counts = analysis.scores.by_position.table.tolist()
        section.figures = [position_curve(losses, counts, analysis.unit), token_bars(tokens, analysis.unit)]
        section.tables = [token_table(tokens, analysis.unit)]
    return section


def shorten(text: str) -> str:
    """Return the end of a text."""
    return text if len(text) <= MAX_CONTEXT else f"…{text[1 - MAX_CONTEXT :]}"


def visible(token: bytes) -> str:
    """Return a token with its white space made visible; bytes that are no whole characters as hexadecimal numbers."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return token.hex(" ")
    return "".join(VISIBLE.get(c, c if c.isprintable() else c.encode("unicode_escape").decode()) for c in text)


def bin_positions(losses: Sequence[float], counts: Sequence[float]) -> list[tuple[int, int, float]]:
    """Return the first and the last position, counted from 1, and the mean loss of ranges that grow with the position.

    A mean over more positions is less noisy, and the axis of the figure is logarithmic.
    """
    bins, start = [], 0
    while start < len(losses):
        stop = min(len(losses), max(start + 1, int((start + 1) * BIN_GROWTH)))
        if number := sum(counts[start:stop]):
            bins.append((start + 1, stop, sum(losses[start:stop]) / number))
        start = stop
    return bins


def show_range(first: int, last: int) -> str:
    """Return a range of positions in words."""
    return f"{first:,} to {last:,}" if last > first else f"{first:,}"


def position_curve(losses: Sequence[float], counts: Sequence[float], unit: str) -> Figure:
    """The loss against the number of tokens that the model sees."""
    bins = bin_positions(losses, counts)
    values = [{"context": (a + b) / 2, "loss": loss, "positions": show_range(a, b)} for a, b, loss in bins]
    scale = alt.Scale(type="log", base=2, nice=False)
    ticks = [1 << power for power in range(len(losses).bit_length())]
    line = alt.Chart(alt.InlineData(values=values)).mark_line(point={"size": 30})
    line = line.encode(
        x=alt.X("context:Q", title=f"{unit}s of context", scale=scale, axis=alt.Axis(values=ticks, format=",d")),
        y=alt.Y("loss:Q", title=f"nats per {unit}", scale=alt.Scale(zero=False)),
        tooltip=["positions:N", alt.Tooltip("loss:Q", format=".4f")],
    )
    (_, _, first), (start, end, last) = bins[0], bins[-1]
    said = (
        f"Validation loss by the number of {unit}s that the model sees before the one that it predicts: {first:.4f} "
        f"with one, {last:.4f} with {show_range(start, end)}."
    )
    return finish("loss_by_position", "Loss by position", said, line, HEIGHT)


@dataclass(frozen=True)
class TokenLoss:
    """The losses of one token: its text, number of occurrences, mean [nats], and share of all losses."""

    text: str
    count: int
    mean: float
    share: float


def rank_tokens(losses: Sequence[float], counts: Sequence[float], texts: Sequence[str]) -> list[TokenLoss]:
    """Return the losses of each token that occurs, the most frequent first."""
    total = sum(losses) or 1.0
    found = zip(texts, counts, losses, strict=False)
    ranked = [TokenLoss(text, int(count), loss / count, loss / total) for text, count, loss in found if count]
    return sorted(ranked, key=lambda token: -token.count)


def token_bars(tokens: Sequence[TokenLoss], unit: str) -> Figure:
    """The mean losses of the most frequent tokens, the hardest first."""
    shown = sorted(tokens[:NUM_BARS], key=lambda token: -token.mean)
    values = [{"token": t.text, "loss": t.mean, "occurrences": t.count, "share": t.share} for t in shown]
    bars = alt.Chart(alt.InlineData(values=values)).mark_bar()
    bars = bars.encode(
        x=alt.X("loss:Q", title=f"nats per {unit}", axis=alt.Axis(tickCount=5)),
        y=alt.Y("token:N", title=None, sort=None, axis=alt.Axis(labelLimit=120)),
        tooltip=["token:N", alt.Tooltip("loss:Q", format=".4f"), "occurrences:Q", alt.Tooltip("share:Q", format=".1%")],
    )
    said = (
        f"Mean validation loss of the {len(shown)} most frequent {unit}s: the hardest is {shown[0].text} with "
        f"{shown[0].mean:.4f}, the easiest {shown[-1].text} with {shown[-1].mean:.4f}."
    )
    return finish("loss_by_token", f"Loss by {unit}", said, bars, 17 * len(shown) + 10)


def token_table(tokens: Sequence[TokenLoss], unit: str) -> Table:
    """The tokens that cost most."""
    costly = sorted(tokens, key=lambda token: -token.share)[:NUM_ROWS]
    rows = [[t.text, show(t.count), f"{t.mean:.4f}", f"{t.share:.1%}"] for t in costly]
    columns = [unit, "occurrences", "mean loss [nats]", "share of the loss"]
    return Table(f"The {unit}s with the largest share of the loss", columns, rows)
