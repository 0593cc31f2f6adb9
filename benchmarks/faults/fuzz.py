"""Random command lines: whatever is typed, there is an answer and no traceback."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import yaml
from benchmarks.faults.killed import STOCK
from benchmarks.faults.trial import ROOT, TINY, Process, Result, Row, parallel, run

NUMBERS = "-1 0 1 2 3 7 0.5 1e-30 1e30 -1e30 inf nan 1e999 2147483648 9223372036854775808 0x10 1_000 1e3 ٣".split()
NUMBERS += [str(10**30)]
WORDS = "null true false ??? auto latest . .. / ~ None [] {} [1,2] {a:1} '' \"x\" é 漢字 a=b a:b a,b glob(*)".split()
WORDS += "choice(1,2) range(1,3) int(x) ${oc.env:HOME} ${seed} ${nowhere} ${ ${random:} ${oc.env:NO_SUCH} [1 {a".split()
WORDS += ["", "'a b'", "\x7f", "\\", "'"]
JUNK = "= == =1 +=1 ~ ~seed @ model@x=nano model:nano - -- -x --seed=1 a.b.c +a.b.c=1 ++a=1 +++a=1 ~a=1 seed".split()
JUNK += "seed= seed=1=2 model.=1 .model=1 model..dim=1 *=1 +experiment=x experiment=null hydra=x -c".split()
JUNK += "hydra.mode=MULTIRUN hydra/launcher=x --cfg=nonsense".split() + [""]


def keys() -> list[str]:
    """Every option and group of a tiny run."""
    from minigpt.config.conf import groups

    options = ["seed", "precision", "compile", "resume", "resume_anyway", "name", "paths.run_dir", "paths.log_dir"]
    for group, file in {"model": "nano", "trainer": "default", "optimizer": "muon", "scheduler": "wsd"}.items():
        node = yaml.safe_load((ROOT / f"conf/{group}/{file}.yaml").read_text())
        options += [f"{group}.{key}" for key in node if key != "defaults"]
    options += [f"data.{key}" for key in "block_size batch_size seed num_chars text_seed data_dir path url".split()]
    options += [f"callbacks.{key}" for key in "checkpoints.keep_last checkpoints samples.prompt progress".split()]
    options += ["+trainer.fast_dev_run", "+trainer.profiler", "+data.val_fraction", "+model.attention.num_kv_heads"]
    options += ["model.attention.fused", "+model.mlp.hidden_dim", "logger.csv", "+logger.csv.x", "model.attention"]
    return [*options, *(g for g in groups() if not g.startswith(("hydra", "paths", "debug")))]


def command_lines(count: int) -> list[list[str]]:
    """Random lists of overrides, the same ones each time."""
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


def at_most_two_steps() -> None:
    """A random command line may ask for a run of a year: end it after two steps, in a folder of its own."""
    from minigpt.training.callbacks.graceful_stop import GracefulStop

    def on_train_batch_end(self, trainer, *rest) -> None:
        if trainer.global_step >= 2:
            trainer.should_stop = True

    GracefulStop.on_train_batch_end = on_train_batch_end


def one(folder: Path, item: tuple[int, list[str]]) -> str:
    """What is wrong with the answer to one command line."""
    number, options = item
    place = folder / str(number)
    place.mkdir()
    shutil.copytree(folder / "data", place / "data")
    tiny = [o for o in TINY if not o.startswith("model.dropout")]
    process = Process([*tiny, "trainer.max_steps=2", *options], place, before=at_most_two_steps)
    ended = process.wait(30)
    shutil.rmtree(place)
    fine = "Traceback" not in ended.errors and ended.code in (0, 1, 2) and (ended.code == 0 or ended.is_one_line)
    return "" if fine else f"{options}: exit code {ended.code} {ended.errors[-300:]}"


def command_line(folder: Path, trials: int, controls: int) -> Iterator[Row]:
    """Random command lines to src/train.py."""
    assert run([*TINY, "trainer.max_steps=2", f"paths.run_dir={folder / 'warm'}"], folder).code == 0
    results = parallel(partial(one, folder), enumerate(command_lines(trials)))
    wrong = [r for r in results if r]
    for text in wrong:
        print(text, flush=True)
    ours, stock = Result(len(results) - len(wrong), len(results), "; ".join(wrong)[:400]), None
    if controls:
        clean = 0
        values = ["dim=33", "dim=-1", "lr=high", "max_steps=1.5", "dim=0", "every=-1", "resume=nowhere", "timeout_s=x"]
        for number, option in enumerate(values):
            ended = run([f"folder={folder / f'stock{number}'}", "max_steps=2", option], folder, script=STOCK)
            clean += ended.code == 0 or ended.is_one_line
        stock = Result(clean, len(values), "the others end with a traceback")
    fault = "random command lines: an answer of one line or a run, never a traceback"
    yield Row(fault, ours, "a plain Lightning script, eight mistakes", stock)
