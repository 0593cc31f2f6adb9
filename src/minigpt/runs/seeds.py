"""Several seeds of one configuration: mean and standard error, and a paired test of two configurations."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FIGURES = ("val_bpc_best", "val_loss_best", "train_s", "tokens_per_s")
DECIMALS = {"train_s": 1, "tokens_per_s": 0}  # of figures as they are shown; four of the others


def mean_and_error(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the mean and its standard error, s / sqrt(n) with the sample deviation s; None where n is too small."""
    if not values:
        return None, None
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.fmean(values), error


def two_sided_p(t: float, degrees: int) -> float:
    """Return P(|T| > |t|) of Student's t distribution with an integer number of degrees of freedom.

    The finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4; its absolute error is that of float64.
    """
    angle = math.atan2(abs(t), math.sqrt(degrees))
    odd = degrees % 2
    cosine, term, total = math.cos(angle), math.cos(angle) if odd else 1.0, 0.0
    for k in range(odd, degrees - 1, 2):
        total += term
        term *= cosine**2 * (k + 1) / (k + 2)
    inside = math.sin(angle) * total
    return min(1.0, max(0.0, 1 - (2 / math.pi * (angle + inside) if odd else inside)))


def paired_t_test(differences: Sequence[float]) -> tuple[float | None, float | None]:
    """Return t and the two-sided p of differences whose mean is 0 by hypothesis; None where no test is possible."""
    mean, error = mean_and_error(differences)
    if mean is None or not error:  # one seed, or differences that are all the same
        return None, None
    return mean / error, two_sided_p(mean / error, len(differences) - 1)


def summarize_configurations(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry for each configuration, the lowest mean of bits per character first.

    Only completed runs count: a diverged one has a best loss, too, but that of its first steps.

    Args:
        rows: runs, with `configuration`, `seed`, `status`, `job` and FIGURES.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["configuration"], []).append(row)
    entries = [summarize(name, group) for name, group in groups.items()]
    entries.sort(key=lambda entry: (entry["val_bpc_best"] is None, entry["val_bpc_best"] or 0.0))
    return [{"rank": place, **entry} for place, entry in enumerate(entries, start=1)]


def summarize(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means, standard errors and numbers of one configuration."""
    losses = by_seed(rows)
    entry: dict[str, Any] = {"configuration": name, "seeds": len(losses), "runs": len(rows)}
    for figure in FIGURES:
        mean, error = mean_and_error(list(by_seed(rows, figure).values()))
        entry |= {figure: mean, f"{figure}_stderr": error}
    return entry | {"jobs": [row["job"] for row in rows], "val_bpc_best_by_seed": losses}


def by_seed(rows: Iterable[Mapping[str, Any]], figure: str = "val_bpc_best") -> dict[str, float]:
    """Return a figure of the completed runs by seed; the mean where several runs have one seed."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["status"] == "completed" and row[figure] is not None:
            values.setdefault(str(row["seed"]), []).append(row[figure])
    return {seed: statistics.fmean(found) for seed, found in values.items()}


def compare_best_two(configurations: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Compare the first two configurations by the seeds that both have; None where these are fewer than two.

    `difference` is the second's mean minus the best's, in bits per character.
    """
    if len(configurations) < 2:
        return None
    best, second = configurations[:2]
    one, other = best["val_bpc_best_by_seed"], second["val_bpc_best_by_seed"]
    differences = [other[seed] - one[seed] for seed in one if seed in other]
    if len(differences) < 2:
        return None
    mean, error = mean_and_error(differences)
    t, p = paired_t_test(differences)
    names = {"best": best["configuration"], "second": second["configuration"]}
    return {**names, "seeds": len(differences), "difference": mean, "difference_stderr": error, "t": t, "p": p}


def describe_comparison(comparison: Mapping[str, Any] | None) -> str:
    """Return the paired comparison in one sentence; empty where there is none."""
    if comparison is None:
        return ""
    difference, error, p = (comparison[key] for key in ("difference", "difference_stderr", "p"))
    test = "the differences are all the same, so no test" if p is None else f"t = {comparison['t']:.2f}, p = {p:.2g}"
    return (
        f"{comparison['best']} has {difference:.4f} ± {error:.4f} fewer bits per character than "
        f"{comparison['second']}, paired over {comparison['seeds']} seeds ({test}, two-sided t-test)"
    )


def format_figure(name: str, value: float) -> str:
    """Return a figure of a run as it is shown, with as many decimals as are of use."""
    return f"{value:,.{DECIMALS.get(name, 4)}f}"
