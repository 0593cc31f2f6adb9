"""Losses that are not finite or far too large, and too little memory."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from benchmarks.faults.comparison import equal_weights, state_dict
from benchmarks.faults.harness import BASELINE, TINY, run
from benchmarks.faults.results import Result, Row, count_passed


def scale_loss(step: int, factor: float) -> Callable[[], None]:
    """A patch that multiplies the loss of one step."""

    def patch() -> None:
        from minigpt.training.module import LanguageModel

        def training_step(self, batch, batch_index, original=LanguageModel.training_step):
            output = original(self, batch, batch_index)
            return output | {"loss": output["loss"] * (factor if self.global_step + 1 == step else 1.0)}

        LanguageModel.training_step = training_step

    return patch


def scale_baseline_loss(step: int, factor: float) -> Callable[[], None]:
    """The same for the baseline, whose class does not exist before its script runs."""

    def patch() -> None:
        import torch.nn.functional as F

        calls = [0]

        def cross_entropy(*args, original=F.cross_entropy, **kwargs):
            calls[0] += 1
            return original(*args, **kwargs) * (factor if calls[0] == step else 1.0)

        F.cross_entropy = cross_entropy

    return patch


def all_finite(weights: dict[str, torch.Tensor]) -> bool:
    """Whether no weight is NaN or infinite."""
    return all(bool(weight.isfinite().all()) for weight in weights.values())


def non_finite(folder: Path, baselines: int) -> Iterator[Row]:
    """A NaN or infinite loss."""
    failures = []
    for name, factor in (("nan", float("nan")), ("inf", float("inf"))):
        run_dir = folder / name
        done = run([*TINY, f"paths.run_dir={run_dir}"], folder, before=scale_loss(8, factor))
        named = re.search(r"gradient norm is (nan|inf) at step 8, with a learning rate of", done.stderr)
        checkpoint = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
        untouched = all_finite(checkpoint["state_dict"]) and checkpoint["global_step"] <= 7
        ok = done.exit_code == 1 and done.has_one_line_error and named and untouched
        failures.append("" if ok else str(done))
    baseline = None
    if baselines:
        place = folder / "baseline-nan"
        patch = scale_baseline_loss(8, float("nan"))
        done = run([f"folder={place}", "max_steps=12"], folder, script=BASELINE, before=patch)
        finite = all_finite(state_dict(place / "checkpoints/last.ckpt"))
        note = f"exit code {done.exit_code}, {'finite' if finite else 'NaN'} weights"
        baseline = Result(int(done.exit_code != 0 and finite), 1, note)
    fault = "non-finite loss: aborted before the optimizer step; step, learning rate, norm named; checkpoint finite"
    yield Row(fault, count_passed(failures), "Lightning", baseline)


def loss_spike(folder: Path, baselines: int) -> Iterator[Row]:
    """A loss that is 100 times too large, with callbacks=skip_spikes."""
    options = [*TINY, "callbacks=skip_spikes", "callbacks.checkpoints.keep_last_n=50", "trainer.max_steps=40"]
    options += ["callbacks.skip_spikes.window=16"]
    spiked, plain = folder / "spike", folder / "no-spike"
    done = run([*options, f"paths.run_dir={spiked}"], folder, before=scale_loss(30, 100.0))
    assert run([*options, f"paths.run_dir={plain}"], folder).exit_code == 0
    log = (spiked / "train.log").read_text()
    # Step 29 updated the weights and step 30 did not: from 28 to 30 they moved, but only as far as one step does.
    moved, expected = (torch.dist(flat_weights(d, 28), flat_weights(d, 30)).item() for d in (spiked, plain))
    logged = "skipped step 30" in log and "skipped step 30" in done.stdout and log.count("skipped step") == 1
    counted = "optim/skipped_steps" in (spiked / "metrics.csv").read_text().splitlines()[0]
    ok = done.exit_code == 0 and logged and counted and moved < 0.75 * expected
    ours = Result(int(ok), 1, f"the weights moved {moved / expected:.2f} times as far as without the spike")
    baseline = None
    if baselines:
        place = folder / "baseline-spike"
        patch = scale_baseline_loss(10, 100.0)
        run_options = [f"folder={place}", "max_steps=12", "every=1"]
        assert run(run_options, folder, script=BASELINE, before=patch).exit_code == 0
        one, two = (state_dict(next(place.glob(f"checkpoints/step={step}.ckpt"))) for step in (9, 10))
        skipped = equal_weights(one, two)
        baseline = Result(int(skipped), 1, "skipped" if skipped else "the step was taken")
    yield Row("loss 100 times too large: the step is skipped, counted and logged", ours, "Lightning", baseline)


def flat_weights(run_dir: Path, step: int) -> torch.Tensor:
    """All weights of a checkpoint in one vector."""
    return torch.cat([weight.flatten() for weight in state_dict(run_dir / f"checkpoints/step_{step}.ckpt").values()])


def limit_memory() -> None:
    """Limit this process to 600 MiB more than it has."""
    import resource

    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (600 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def memory(folder: Path, baselines: int) -> Iterator[Row]:
    """A run that needs more memory than there is."""
    options = [*TINY, "data.batch_size=10000", "model.block_size=64", "trainer.accumulate_grad_batches=1"]
    done = run([*options, f"paths.run_dir={folder / 'memory'}"], folder, before=limit_memory)
    ok = done.exit_code == 1 and done.has_one_line_error and "lower data.batch_size" in done.stderr
    refused = run([*TINY, "model.dim=2000000", "model.num_heads=2"], folder)
    early = refused.is_usage_error and "needs at least" in refused.stderr
    baseline = None
    if baselines:
        options = [f"folder={folder / 'baseline-memory'}", "dim=200000"]
        plain = run(options, folder, script=BASELINE, before=limit_memory)
        note = f"exit code {plain.exit_code}, {len(plain.stderr.splitlines())} lines"
        baseline = Result(int(plain.has_one_line_error), 1, note)
    ours = Result(ok + early, 2, "" if ok and early else f"{done} | {refused}")
    yield Row("out of memory: one line of advice", ours, "Lightning", baseline)
