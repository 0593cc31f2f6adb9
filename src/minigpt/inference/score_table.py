"""Figures of evaluate.py as plain tables."""

from collections.abc import Sequence
from typing import Any

from minigpt.data.tokenizer import Tokenizer
from minigpt.inference.scoring import DetailedScore

COSTLIEST = 10  # tokens of the table of losses by token
TEXTS = ("text", "split", "precision", "checkpoint")  # shown without a column, or in the last one


def describe_details(score: DetailedScore, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return calibration, loss by position and loss by token as plain data; groups without tokens are left out."""
    bins = score.by_confidence
    width = 1 / len(bins.count)
    calibration = [
        {"from": i * width, "to": (i + 1) * width} | row for i, row in rows(bins, ("confidence", "accuracy", "count"))
    ]
    by_position = [{"position": i} | row for i, row in rows(score.by_position, ("loss", "accuracy", "count"))]
    by_token = [
        {"token": token_text(tokenizer, i), "id": i} | row
        for i, row in rows(score.by_token, ("loss", "accuracy", "count"))
    ]
    by_token.sort(key=lambda row: -row["loss"] * row["count"])
    return {"calibration": calibration, "loss_by_position": by_position, "loss_by_token": by_token}


def rows(sums: Any, names: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
    """Return the number of each group that has tokens, and its means and count by name."""
    columns = [getattr(sums, name).tolist() for name in names]
    return [
        (i, dict(zip(names, [*values[:-1], int(values[-1])], strict=True)))
        for i, values in enumerate(zip(*columns, strict=True))
        if values[-1]
    ]


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """Return the text of a token; the number of one that has none, such as the end of a line."""
    return tokenizer.tokens[token].decode(errors="replace") if token < len(tokenizer.tokens) else f"<{token}>"


def table(results: list[dict[str, Any]], *, details: bool) -> str:
    """Return a table with a line for each checkpoint, and with `details` those of each one's details."""
    names = [name for name, value in results[0].items() if name not in TEXTS and not isinstance(value, list)]
    parts = [align([[*names, "checkpoint"], *([r.get(name) for name in [*names, "checkpoint"]] for r in results)])]
    for result in results if details else ():
        parts += [f"{result['checkpoint']}, split={result['split']}", *detail_tables(result)]
    return "\n\n".join(parts)


def detail_tables(result: dict[str, Any]) -> list[str]:
    """Return the tables of losses by position and by token, and of the calibration."""
    by_token = result["loss_by_token"]
    total = sum(row["loss"] * row["count"] for row in by_token)
    positions = [["position", "loss", "accuracy", "tokens"], *group_positions(result["loss_by_position"])]
    tokens = [["token", "share of the loss", "loss", "accuracy", "tokens"]]
    for row in by_token[:COSTLIEST]:
        share = f"{row['loss'] * row['count'] / total:.1%}" if total else "0.0%"
        tokens.append([repr(row["token"]), share, row["loss"], row["accuracy"], row["count"]])
    bins = [["predicted with probability", "mean probability", "accuracy", "tokens"]]
    for row in result["calibration"]:
        bins.append([f"{row['from']:.2f} to {row['to']:.2f}", row["confidence"], row["accuracy"], row["count"]])
    return [align(positions), align(tokens), align(bins)]


def group_positions(by_position: list[dict[str, Any]]) -> list[list[Any]]:
    """Return the mean loss and accuracy of positions 0, 1, 2 to 3, 4 to 7 and so on."""
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in by_position:
        groups.setdefault(row["position"].bit_length(), []).append(row)
    found = []
    for group in groups.values():
        first, last, count = group[0]["position"], group[-1]["position"], sum(row["count"] for row in group)
        means = [sum(row[name] * row["count"] for row in group) / count for name in ("loss", "accuracy")]
        found.append([str(first) if first == last else f"{first} to {last}", *means, count])
    return found


def align(lines: list[list[Any]]) -> str:
    """Return lines of cells as text: numbers of four decimals to the right, all others to the left."""
    texts = [[cell_text(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    is_number = [isinstance(cell, int | float | None) for cell in lines[-1]]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, is_number, strict=True)
        ).rstrip()
        for line in texts
    )


def cell_text(cell: Any) -> str:
    """Return a cell as text."""
    return (
        f"{cell:.4f}"
        if isinstance(cell, float)
        else "-"
        if cell is None
        else f"{cell:,}"
        if isinstance(cell, int)
        else str(cell)
    )
