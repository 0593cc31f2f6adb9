"""Random command lines: every one must give a run or a one-line error, never a traceback."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import yaml
from benchmarks.faults.harness import BASELINE, ROOT, TINY, Process, parallel, run
from benchmarks.faults.results import Result, Row, count_passed

NUMBERS = "-1 0 1 2 3 7 0.5 1e-30 1e30 -1e30 inf nan 1e999 2147483648 9223372036854775808 0x10 1_000 1e3 ٣".split()
NUMBERS += [str(10**30)]
WORDS = "null true false ??? auto latest . .. / ~ None [] {} [1,2] {a:1} '' \"x\" é 漢字 a=b a:b a,b glob(*)".split()
WORDS += "choice(1,2) range(1,3) int(x) ${oc.env:HOME} ${seed} ${nowhere} ${ ${random:} ${oc.env:NO_SUCH} [1 {a".split()
WORDS += ["", "'a b'", "\x7f", "\\", "'"]
JUNK = "= == =1 +=1 ~ ~seed @ model@x=nano model:nano - -- -x --seed=1 a.b.c +a.b.c=1 ++a=1 +++a=1 ~a=1 seed".split()
JUNK += "seed= seed=1=2 model.=1 .model=1 model..dim=1 *=1 +experiment=x experiment=null hydra=x -c".split()
JUNK += "hydra.mode=MULTIRUN hydra/launcher=x --cfg=nonsense".split() + [""]
BASELINE_MISTAKES = "dim=33 dim=-1 lr=high max_steps=1.5 dim=0 every=-1 resume=nowhere timeout_s=x".split()


def keys() -> list[str]:
    """All options and config groups of a tiny run."""
    from minigpt.config.packaged import config_groups

    options = ["seed", "precision", "compile", "resume", "ignore_fingerprint", "name", "paths.run_dir", "paths.log_dir"]
    for group, file in {"model": "nano", "trainer": "default", "optimizer": "muon", "scheduler": "wsd"}.items():
        node = yaml.safe_load((ROOT / f"conf/{group}/{file}.yaml").read_text())
        options += [f"{group}.{key}" for key in node if key != "defaults"]
    data = "block_size batch_size seed num_chars generator_seed data_dir path url".split()
    options += [f"data.{key}" for key in data]
    options += [f"callbacks.{key}" for key in "checkpoints.keep_last_n checkpoints samples.prompt progress".split()]
    options += ["+trainer.fast_dev_run", "+trainer.profiler", "+data.val_fraction", "+model.attention.num_kv_heads"]
    options += ["model.attention.fused", "+model.mlp.hidden_dim", "logger.csv", "+logger.csv.x", "model.attention"]
    return [*options, *(g for g in config_groups() if not g.startswith(("hydra", "paths", "debug")))]


def command_lines(count: int) -> list[list[str]]:
    """Random lists of overrides, the same ones in every call."""
    letters = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=12)
    value = st.one_of(
        st.sampled_from(NUMBERS),
        st.sampled_from(WORDS),
        st.integers().map(str),
        st.floats().map(str),
        letters,
    )
    prefix = st.sampled_from(["", "", "", "", "+", "++", "~"])
    option = st.builds(lambda p, k, v: f"{p}{k}={v}".replace("+++", "++"), prefix, st.sampled_from(keys()), value)
    junk = st.one_of(st.sampled_from(JUNK), letters)
    found: list[list[str]] = []

    @hypothesis.settings(
        max_examples=count, derandomize=True, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(st.lists(st.one_of(option, option, option, junk), min_size=1, max_size=4))
    def collect(options: list[str]) -> None:
        found.append(options)

    collect()
    return found


def stop_after_two_steps() -> None:
    """Patch the run to stop after two steps, since a random command line may ask for a very long one."""
    from minigpt.training.callbacks.graceful_stop import GracefulStop

    def on_train_batch_end(self, trainer, *rest) -> None:
        if trainer.global_step >= 2:
            trainer.should_stop = True

    GracefulStop.on_train_batch_end = on_train_batch_end


def try_command_line(folder: Path, item: tuple[int, list[str]]) -> str:
    """Run one command line; returns the failure, if any."""
    number, options = item
    place = folder / str(number)
    place.mkdir()
    shutil.copytree(folder / "data", place / "data")
    tiny = [o for o in TINY if not o.startswith("model.dropout")]
    process = Process([*tiny, "trainer.max_steps=2", *options], place, before=stop_after_two_steps)
    done = process.wait(30)
    shutil.rmtree(place)
    ok = done.exit_code == 0 or (done.exit_code in (1, 2) and done.has_one_line_error)
    return "" if ok and "Traceback" not in done.stderr else f"{options}: {done}"


def command_line(folder: Path, trials: int, baselines: int) -> Iterator[Row]:
    """Random command lines of src/train.py."""
    assert run([*TINY, "trainer.max_steps=2", f"paths.run_dir={folder / 'first'}"], folder).exit_code == 0
    failures = parallel(partial(try_command_line, folder), enumerate(command_lines(trials)))
    for failure in filter(None, failures):
        print(failure, flush=True)
    baseline = None
    if baselines:
        clean = 0
        for number, option in enumerate(BASELINE_MISTAKES):
            options = [f"folder={folder / f'baseline{number}'}", "max_steps=2", option]
            done = run(options, folder, script=BASELINE)
            clean += done.exit_code == 0 or done.has_one_line_error
        baseline = Result(clean, len(BASELINE_MISTAKES), "the others end with a traceback")
    fault = "random command lines: a run or a one-line error, never a traceback"
    yield Row(fault, count_passed(failures), "a plain Lightning script, eight mistakes", baseline)
