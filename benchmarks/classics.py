"""What each part of the classics buys: trains every row of docs/classics.md and writes its tables and curves.

    make classics                      all of it (half an hour on two cores)
    make classics ARGS="--only ladder positions"

Losses are compared here, not times: two runs at once, one thread each. All rows of a table have the same data, steps
and optimizer, unless the row is an experiment of its own.
"""

import argparse
import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT, train, write

PAGE = ROOT / "docs/classics.md"
LADDER = "bigram one_head multi_head feed_forward residual layer_norm".split()


def nano(*options: str, steps: int = 200) -> list[str]:
    """A row of the tables that change one part: without convolutions, which would help some parts more than others."""
    block = [] if any(option.startswith("model/block=") for option in options) else ["model/block=pre_norm"]
    return [*block, *options, f"trainer.max_steps={steps}", "trainer.val_every_n_steps=50"]


def sized(kind: str, *sizes: int) -> dict[str, list[str]]:
    """A row for each vocabulary of a subword tokenizer."""
    tokenizer = f"data/tokenizer={kind.lower()}"
    return {f"{kind} {size}": nano(tokenizer, f"data.tokenizer.vocab_size={size}", steps=300) for size in sizes}


def choices(group: str, names: str) -> dict[str, list[str]]:
    """A row for each choice of a group."""
    return {name: nano(f"{group}={name}") for name in names.split()}


TABLES: dict[str, dict[str, list[str]]] = {
    "ladder": {name: [f"experiment=lecture/{name}"] for name in LADDER},
    "tokenizers": {
        "char": nano(steps=300),
        "byte": nano("data/tokenizer=byte", steps=300),
        **sized("BPE", 512, 1024, 4096),
        **sized("WordPiece", 1024, 4096),
    },
    "positions": choices("model/positions", "none learned sinusoidal alibi rotary"),
    "attention": choices("model/attention", "causal qk_norm mqa gqa sliding_window strided softcap value_residual"),
    "mlp": choices("model/mlp", "relu gelu relu2 swiglu experts"),
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
    """One row: its figures, and its curve of (step, validation loss), in bits per character where tokens differ."""
    found = train(folder, "logger=none", "callbacks.samples=null", "callbacks.checkpoints=null", *options)
    unit = "val/bpc" if table == "tokenizers" else "val/loss"
    curve = [(int(row["step"]), float(row[unit])) for row in found["rows"] if row.get(unit)]
    figures = {k: found[k] for k in ("val_loss", "val_bpc", "parameters", "published", "steps", "train_s")}
    print(
        f"{table:12} {label:24} loss {figures['val_loss']:.4f}  bits per character {figures['val_bpc']:.3f}", flush=True
    )
    return {"label": label, "command": " ".join(["python src/train.py", *options]), **figures, "curve": curve}


def tabulate(rows: list[dict[str, Any]]) -> str:
    """A table's rows in Markdown."""
    published = any(row["published"] is not None for row in rows)
    head = ["", *(["published"] if published else []), "loss", "bits per character", "parameters"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        shown = [f"{row['published']:.2f}" if row["published"] is not None else ""] if published else []
        figures = [f"{row['val_loss']:.4f}", f"{row['val_bpc']:.3f}", f"{row['parameters']:,}"]
        lines.append([row["label"], *shown, *figures])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(name: str, rows: list[dict[str, Any]]) -> None:
    """docs/classics/<name>.svg: the validation loss of each row over its steps."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "minigpt"  # the same picture, the same bytes
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
    """Put a table between its two marks in the page."""
    begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    PAGE.write_text(f"{before}{begin}{table}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def main() -> None:
    """Train, write the figures, and bring the page up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=TABLES, default=list(TABLES))
    parser.add_argument("--draw", action="store_true", help="only draw and tabulate what a file of figures holds")
    arguments = parser.parse_args()
    if not arguments.draw:
        os.environ |= {"OMP_NUM_THREADS": "1"}
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
            found = {
                name: list(pool.map(partial(run, Path(folder), name), TABLES[name], TABLES[name].values()))
                for name in arguments.only
            }
        write("classics", found, merge=True)
    newest = max((ROOT / "benchmarks/results").glob("classics_*.json"))
    figures = json.loads(newest.read_text())
    for name in TABLES:
        if name in figures:
            insert(name, tabulate(figures[name]))
            draw(name, figures[name])


if __name__ == "__main__":
    main()
