"""Option values at the edges of their type: each is refused in one line, or runs within the memory there is."""

import ast
import os
import re
import resource
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import get_type_hints

import hypothesis
import hypothesis.strategies as st
import yaml
from benchmarks.faults.harness import BASELINE, ROOT, TINY, CompletedProcess, Process, parallel, run
from benchmarks.faults.results import Result, Row, count_passed

MEMORY = 1536 << 20  # bytes that a trial may believe to be available
LIMIT = 2 << 30  # bytes that it may take
REFUSED_S, RAN_S = 10, 120
BASE = (
    "data.batch_size=8 trainer.max_steps=2 trainer.val_every_n_steps=2 trainer.log_every_n_steps=1 logger=csv".split()
)
BASE += ["precision=32-true"]
NUMERIC = re.compile("int|Int|float|Float|Steps|Seed|Fraction|Num|Momentum|Probability|Penalty|Ratio|list|tuple")
INTS = [0, 1, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63), 10**3, 10**5, 10**6, 10**7, 10**8, 10**9, 10**12, 10**18]
FLOATS = ["nan", "inf", "-inf", "1e300", "-1e300", "1e-300", "1e-40", "3.5e38", "1.2e-38", "1e19", "1e-37", "1e30"]
BASELINE_EDGES = ["lr=1e300", "lr=nan", "dim=2147483648", "every=9223372036854775808", "timeout_s=1e300", "max_steps=x"]
# What a choice needs beside it to be a run at all.
WITH = {
    "data=denoising_synthetic": ["model=encoder_decoder", "callbacks=denoising"],
    "data=text": ["data.path=data/synthetic/20000-1.txt"],
    "model=encoder_decoder": ["data=denoising_synthetic", "callbacks=denoising"],
    "model=multi_token": ["objective=multi_token"],
    "objective=multi_token": ["model=multi_token"],
    "objective=masked": ["model/attention=bidirectional"],
    "model/attention=bidirectional": ["objective=masked"],
    "callbacks=denoising": ["model=encoder_decoder", "data=denoising_synthetic"],
}
NOT_HERE = ("hydra", "paths", "debug", "experiment", "hparams_search", "logger", "trainer=ddp", "trainer=fsdp")
NOT_HERE += ("trainer=gpu", "trainer=mps", "data=shakespeare_char", "data=denoising", "model=medium", "model=small")
LIGHTNING = [
    "limit_train_batches=0.1", "limit_train_batches=5", "limit_val_batches=0.1", "limit_val_batches=0",
    "overfit_batches=0.5", "overfit_batches=1000000000", "max_time=xyz", "max_time=1", "benchmark=7",
    "detect_anomaly=maybe", "min_steps=1000000000", "min_epochs=5", "inference_mode=2", "fast_dev_run=-1",
    "gradient_clip_algorithm=value", "gradient_clip_val=0", "deterministic=often", "profiler=x", "barebones=true",
    "reload_dataloaders_every_n_epochs=-1", "num_sanity_val_steps=-1", "devices=[0,0]", "devices=[-1]", "devices=[]",
]  # fmt: skip


def train_options() -> dict[str, list[str]]:
    """Every numeric option of every component of src/train.py, and the options that choose the component."""
    from minigpt.config.packaged import config_groups
    from minigpt.config.signature import read_signature

    found: dict[str, list[str]] = {"seed": [], "reference_loss": []}
    choices = [(group, choice) for group, names in config_groups("train").items() for choice in names]
    for group, choice in choices:
        chosen = f"{group}={choice}"
        node = yaml.safe_load((ROOT / f"conf/{group}/{choice}.yaml").read_text())
        several = group in ("callbacks", "logger")
        for name, component in {} if chosen.startswith(NOT_HERE) else (node if several else {"": node}).items():
            target = component.get("_target_") if isinstance(component, dict) else None
            prefix = ".".join([*group.split("/"), *([name] if name else [])])
            for key, parameter in (read_signature(target) or {} if target else {}).items():
                written = "" if parameter.annotation is None else ast.unparse(parameter.annotation)
                if NUMERIC.search(written):
                    found.setdefault(
                        f"{prefix}.{key}", [*([] if group == "trainer" else [chosen]), *WITH.get(chosen, [])]
                    )
    return found


def command_options(command: str) -> list[str]:
    """The numeric options of another command."""
    from minigpt.config import schema

    hints = get_type_hints(schema.COMMANDS[command], include_extras=True)
    return [name for name, hint in hints.items() if any(word in str(hint) for word in ("int", "float"))]


def edges(count: int = 400) -> list[tuple[str, list[str]]]:
    """So many command lines, each a script and its options with one value at an edge; the same ones in every call."""
    own = [("train.py", option, base) for option, base in train_options().items()]
    own += [(f"{c}.py", option, []) for c in ("generate", "evaluate", "export") for option in command_options(c)]
    number = st.one_of(st.sampled_from([str(n) for n in INTS]), st.sampled_from(FLOATS), st.sampled_from(FLOATS))
    number |= st.integers(-(2**63), 2**63 - 1).map(str) | st.floats().map(str)
    value = st.one_of(number, number, number, st.lists(number, max_size=3).map(lambda v: f"[{','.join(v)}]"))
    found = {("train.py", f"+trainer.{option}"): [] for option in LIGHTNING}

    @hypothesis.settings(
        max_examples=4 * count, derandomize=True, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(st.sampled_from(own), value)
    def collect(option: tuple[str, str, list[str]], value: str) -> None:
        script, name, base = option
        if len(found) < count:
            found.setdefault((script, f"{'++' if script == 'train.py' else ''}{name}={value}"), base)

    collect()
    return [(script, [*base, option]) for (script, option), base in found.items()]


def spread(items: list[tuple[str, list[str]]], count: int) -> list[tuple[str, list[str]]]:
    """So many of the items, evenly from the first to the last."""
    return [items[index * len(items) // count] for index in range(count)]


def small_machine() -> None:
    """Let a command believe that the machine has little memory, and end a long run or a long sample early."""
    import minigpt.inference.sampling as sampling
    import minigpt.inference.text_generation as text_generation
    import minigpt.model.size as size
    from minigpt.training.callbacks.graceful_stop import GracefulStop

    used = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    size.memory_bytes = lambda: MEMORY - used

    def on_train_batch_end(self, trainer, *rest) -> None:
        if trainer.global_step >= 2:
            trainer.should_stop = True

    def generate(*args, original=sampling.generate_with_logits, max_new_tokens, **options):
        return original(*args, max_new_tokens=min(max_new_tokens, 100), **options)

    GracefulStop.on_train_batch_end = on_train_batch_end
    text_generation.generate_with_logits = generate


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of all files of a folder, and its folders; but texts and their caches, which are not the run's."""
    paths = [path for path in folder.rglob("*") if path.relative_to(folder).parts[0] != "data"]
    sizes = {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()}
    return {str(path): (0, 0) for path in paths} | sizes


def try_edge(folder: Path, item: tuple[int, tuple[str, list[str]]]) -> tuple[str, str]:
    """Run one command line; returns how it ended and the failure, if any."""
    number, (script, options) = item
    place = folder / f"edge-{number}"
    shutil.copytree(folder / "start", place)
    before = listing(place)
    command = [*beside(script, options), *options]
    process = Process(command, place, script=ROOT / "src" / script, before=small_machine)
    done, peak, seconds = wait_measured(process, RAN_S)
    changed = listing(place) != before
    shutil.rmtree(place)
    return judge(done, peak, seconds, changed, options)


def beside(script: str, options: list[str]) -> list[str]:
    """What else is typed for a trial."""
    if script != "train.py":
        more = {"export.py": ["output=model.safetensors"], "generate.py": ["prompt=A"]}
        return ["run=run", *more.get(script, [])]
    chosen = next((o for o in options if o.startswith("data=")), None)
    data = ["data=synthetic"] if chosen is None else []
    return [*BASE, *data, *([] if chosen == "data=text" else ["data.num_chars=20000"])]


def wait_measured(process: Process, timeout: float) -> tuple[CompletedProcess, int, float]:
    """Wait for the end of a process; returns it, its peak memory [bytes], and the processor time that it took [s]."""
    peak, seconds = [0], [0.0]

    def sample() -> bool:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            times = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            seconds[0] = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
            peak[0] = max([peak[0], *(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
        except OSError:
            return True
        return False

    process.wait_until(sample, timeout)
    if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        process.kill()
    return process.wait(5), peak[0], seconds[0]


def judge(done: CompletedProcess, peak: int, seconds: float, changed: bool, options: list[str]) -> tuple[str, str]:
    """How a trial ended, and what is wrong with that; empty if nothing is.

    The processor's time counts and not the clock's, since other processes may share the machine.
    """
    diverged = done.exit_code == 1 and "gradient norm is" in done.stderr and done.has_one_line_error
    wrong = []
    if done.exit_code == 2:
        end = "refused"
        wrong += [] if done.has_one_line_error and done.stderr.startswith("error: ") else ["not one line"]
        wrong += ["changed the disk"] if changed else []
        wrong += [f"took {seconds:.1f} s"] if seconds > REFUSED_S else []
    else:
        end = "ran" if done.exit_code == 0 else "diverged" if diverged else "failed"
        wrong += [] if end != "failed" and "Traceback" not in done.stderr else [f"{done}"]
    wrong += [f"took {peak / 1e9:.2f} GB"] if peak > LIMIT else []
    return end, f"{options[-1]}: {', '.join(wrong)}" if wrong else ""


def option_values(folder: Path, trials: int, baselines: int) -> Iterator[Row]:
    """Values at the edges of every numeric option of all commands."""
    start = folder / "start"
    assert run([*TINY, "trainer.max_steps=2", "paths.run_dir=run"], start).exit_code == 0
    ends = parallel(partial(try_edge, folder), enumerate(spread(edges(), trials)))
    counts = {end: sum(e == end for e, _ in ends) for end in ("refused", "ran", "diverged")}
    for _, failure in ends:
        if failure:
            print(failure, flush=True)
    ours = count_passed(failure for _, failure in ends)
    ours.note = ours.note or ", ".join(f"{n} {end}" for end, n in counts.items())
    fault = "option values at the edges: one line, exit code 2, 10 s, nothing written, or a run; both within 2 GiB"
    yield Row(fault, ours, "a plain Lightning script, six values", baseline(folder) if baselines else None)


def baseline(folder: Path) -> Result:
    """Values at the edges of the options of the baseline."""
    clean = 0
    for number, option in enumerate(BASELINE_EDGES):
        options = [f"folder={folder / f'baseline{number}'}", "max_steps=2", option]
        done = run(options, folder, script=BASELINE)
        clean += done.exit_code == 0 or done.has_one_line_error
    return Result(clean, len(BASELINE_EDGES), "the others end with a traceback")
