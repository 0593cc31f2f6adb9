"""Runs that are resumed with another setting."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.faults.harness import BASELINE, TINY, parallel, run
from benchmarks.faults.results import Result, Row, count_passed

CHANGES = """
    seed=2 optimizer.lr=0.03 optimizer.adamw_lr=0.02 optimizer.momentum=0.9 optimizer.weight_decay=0.1
    model.dropout=0.2 model.dim=64 model.num_layers=3 model.num_heads=4
    data.batch_size=16 data.seed=2 +data.num_chars=21000 +data.generator_seed=2
    scheduler.decay_fraction=0.9 scheduler.warmup_steps=3 trainer.accumulate_grad_batches=1 data.block_size=16
    model.tie_head=true +optimizer.iterations=4 +data.val_fraction=0.2
""".split()


def resume_with(folder: Path, change: str) -> str:
    """Resume the run with one changed setting; returns the failure, if any."""
    done = run([f"resume={folder / 'good'}", "trainer.max_steps=12", change], folder)
    name = change.partition("=")[0].lstrip("+")
    named = name in done.stderr or (name.startswith("data.") and "text" in done.stderr)
    named = named or (name == "trainer.accumulate_grad_batches" and "accumulate_grad_batches" in done.stderr)
    return "" if done.is_usage_error and named and "->" in done.stderr else f"{change}: {done}"


def wrong_resume(folder: Path, baselines: int) -> Iterator[Row]:
    """A run resumed with another setting."""
    assert run([*TINY, "trainer.max_steps=10", f"paths.run_dir={folder / 'good'}"], folder).exit_code == 0
    ours = count_passed(parallel(partial(resume_with, folder), CHANGES))
    baseline = None
    if baselines:
        place = folder / "baseline"
        assert run([f"folder={place}", "max_steps=10"], folder, script=BASELINE).exit_code == 0
        done = run([f"folder={place}", "max_steps=12", "resume=last", "lr=0.5"], folder, script=BASELINE)
        baseline = Result(int(done.exit_code != 0), 1, "another learning rate accepted without a message")
    yield Row("resumed with one setting changed: refused, the change named", ours, "Lightning", baseline)
