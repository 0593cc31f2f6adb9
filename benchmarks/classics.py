"""Trains every row of the tables in docs/classics.md, and writes the tables and the curves.

    make classics                      all tables (half an hour on two cores)
    make classics ARGS="--only ladder positions"

This compares losses, not times: two runs at once, one thread each. All rows of a table have the same data, steps and
optimizer, unless the row is an experiment.
"""

import argparse
import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT, train, write_results

PAGE = ROOT / "docs/classics.md"
LECTURE = "bigram one_head multi_head feed_forward residual layer_norm".split()
RENAMED = {"experts": "moe"}  # labels in files of results that are older than the option's name


def nano(*options: str, steps: int = 200) -> list[str]:
    """Options of a row in which one component changes.

    Without convolutions, which would help some components more than others.
    """
    block = [] if any(option.startswith("model/block=") for option in options) else ["model/block=pre_norm"]
    return [*block, *options, f"trainer.max_steps={steps}", "trainer.val_every_n_steps=50"]


def sized(kind: str, *sizes: int) -> dict[str, list[str]]:
    """A row for each vocabulary size of a subword tokenizer."""
    tokenizer = f"data/tokenizer={kind.lower()}"
    return {f"{kind} {size}": nano(tokenizer, f"data.tokenizer.vocab_size={size}", steps=300) for size in sizes}


def choices(group: str, names: str) -> dict[str, list[str]]:
    """A row for each choice of a config group."""
    return {name: nano(f"{group}={name}") for name in names.split()}


TABLES: dict[str, dict[str, list[str]]] = {
    "ladder": {name: [f"experiment=lecture/{name}"] for name in LECTURE},
    "tokenizers": {
        "char": nano(steps=300),
        "byte": nano("data/tokenizer=byte", steps=300),
        **sized("BPE", 512, 1024, 4096),
        **sized("WordPiece", 1024, 4096),
    },
    "positions": choices("model/positions", "none learned sinusoidal alibi rotary"),
    "attention": choices("model/attention", "causal qk_norm mqa gqa sliding_window strided softcap value_residual"),
    "mlp": choices("model/mlp", "relu gelu relu2 swiglu moe"),
    "norm": {
        "LayerNorm, pre": nano("model/norm=layernorm"),
        "LayerNorm, post": nano("model/norm=layernorm", "model/block=post_norm", "model.zero_init=false"),
        "RMSNorm, pre": nano(),
        "RMSNorm, post": nano("model/block=post_norm", "model.zero_init=false"),
        "none": nano("model/norm=none"),
    },
    "block": choices("model/block", "pre_norm convolution")
    | {"two tokens at once": nano("model=multi_token", "objective=multi_token")},
}


def run(folder: Path, table: str, label: str, options: list[str]) -> dict[str, Any]:
    """Train one row; returns its results and its curve: steps and losses, in bits per character for tokenizers."""
    found = train(folder, "logger=csv", "callbacks.samples=null", "callbacks.checkpoints=null", *options)
    unit = "val/bpc" if table == "tokenizers" else "val/loss"
    curve = [(int(record["step"]), float(record[unit])) for record in found["records"] if record.get(unit)]
    results = {k: found[k] for k in ("val_loss", "val_bpc", "parameters", "reference_loss", "steps", "train_s")}
    print(
        f"{table:12} {label:24} loss {results['val_loss']:.4f}  bits per character {results['val_bpc']:.3f}", flush=True
    )
    return {"label": label, "command": " ".join(["python src/train.py", *options]), **results, "curve": curve}


def tabulate(rows: list[dict[str, Any]]) -> str:
    """Format the rows of a table as Markdown."""
    has_reference = any(row["reference_loss"] is not None for row in rows)
    head = ["", *(["reference"] if has_reference else []), "loss", "bits per character", "parameters"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        reference = ["" if row["reference_loss"] is None else f"{row['reference_loss']:.2f}"] if has_reference else []
        measured = [f"{row['val_loss']:.4f}", f"{row['val_bpc']:.3f}", f"{row['parameters']:,}"]
        lines.append([row["label"], *reference, *measured])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(name: str, rows: list[dict[str, Any]]) -> None:
    """Plot the validation loss of each row over its steps to docs/classics/<name>.svg."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "minigpt"  # the same data gives the same file
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for row in rows:
        axes.plot(*zip(*row["curve"], strict=True), label=row["label"], linewidth=1.5)
    axes.set(xlabel="step", ylabel="bits per character" if name == "tokenizers" else "validation loss [nats]")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    (PAGE.parent / "classics").mkdir(exist_ok=True)
    figure.savefig(PAGE.parent / "classics" / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def insert(name: str, table: str) -> None:
    """Replace the table between its two marks in the page."""
    begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    PAGE.write_text(f"{before}{begin}{table}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def main() -> None:
    """Train, write the results, and update the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=TABLES, default=list(TABLES))
    parser.add_argument("--draw", action="store_true", help="train nothing: draw and tabulate the newest results")
    arguments = parser.parse_args()
    if not arguments.draw:
        os.environ |= {"OMP_NUM_THREADS": "1"}
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
            results = {
                name: list(pool.map(partial(run, Path(folder), name), TABLES[name], TABLES[name].values()))
                for name in arguments.only
            }
        write_results("classics", results, merge=True)
    newest = max((ROOT / "benchmarks/results").glob("classics_*.json"))
    tables = json.loads(newest.read_text())
    for name in TABLES:
        if name in tables:
            rows = [row | {"label": RENAMED.get(row["label"], row["label"])} for row in tables[name]]
            insert(name, tabulate(rows))
            draw(name, rows)


if __name__ == "__main__":
    main()
