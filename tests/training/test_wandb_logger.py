"""Weights & Biases: what it is told of a run, offline and by a stand-in for its server."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import wandb
import yaml
from benchmarks.report import compose_config
from tests.forkserver import run_command

from minigpt.inference.wandb_model import download_checkpoint
from minigpt.runs.labels import readable_config, short_name
from minigpt.runs.run import Run
from minigpt.runs.run_files import write_metrics
from minigpt.training.callbacks.metrics import Metrics
from minigpt.training.run_report import SUMMARIZED
from minigpt.training.wandb_logger import SAMPLE_COLUMNS, WandB
from minigpt.training.wandb_service import wandb_settings

ROOT = Path(__file__).parents[2]
TRAIN = "debug=fast logger=wandb optimizer.lr=0.01 trainer.max_steps=60 trainer.log_every_n_steps=5".split()
TRAIN += "+callbacks.samples.max_new_tokens=8 logger.wandb.group=ours logger.wandb.job_type=trial tags=[a,b]".split()
TRAIN += "callbacks.layer_metrics.every_n_steps=20 callbacks.layer_metrics.histograms=true".split()
TRAIN += "logger.wandb.notes=why logger.wandb.entity=me paths.runs_dir=${paths.log_dir}/runs".split()
NAME = "debug=fast lr=0.01 max_steps=60 log_every_n_steps=5 max_new_tokens=8 every_n_steps=20 histograms=tr…"
METRICS = set(
    """
    train/loss optim/lr optim/grad_norm progress/tokens progress/epoch throughput/tokens_per_s throughput/step_ms
    throughput/data_wait_ms memory/max_gib val/loss val/bpc val/perplexity val/accuracy samples attention
    """.split()
)
LAYERS = ("embedding", "blocks.0", "blocks.1", "head")
LAYER_METRICS = {f"{name}/{layer}" for name in ("grad_norm", "update_ratio") for layer in LAYERS}
LAYER_METRICS |= {"max_logit/head"}
for block in LAYERS[1:3]:
    LAYER_METRICS |= {f"activation_rms/{block}", f"max_logit/{block}"}
    LAYER_METRICS |= {f"attention_entropy/{block}.head_{head}" for head in range(2)}
HISTOGRAMS = {f"{name}/{layer}" for name in ("weights", "gradients") for layer in LAYERS}
MEDIA = {"samples", "attention", *HISTOGRAMS}
FIGURES = (
    "parameters val_loss_best val_loss_best_step val_bpc_best train_s tokens_per_s steps status git_commit".split()
)


@pytest.fixture
def logger(tmp_path):
    """Make a logger of a run in a directory of its own."""

    def make(name, mode="online", log_model=False, **previous):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        (directory / "train.log").write_text("a line\n")
        (directory / "checkpoints").mkdir(exist_ok=True)
        (directory / "checkpoints/best.ckpt").write_text("the weights")
        run = Run(directory, {"seed": 1}, [f"seed={name}"], previous_summary=previous)
        return WandB(run=run, mode=mode, project="test", save_dir=str(tmp_path / "wandb"), log_model=log_model)

    return make


def train(folder, *options, before=None, mode="online", **environment):
    """A training in a process of its own."""
    environment = os.environ | {"MINIGPT_DATA_DIR": str(folder / "data"), "WANDB_MODE": mode} | environment
    return run_command("train.py", [*options, "paths.log_dir=logs"], folder, environment, before=before)


def records(folder):
    """What the only run in a folder has written to its local file."""
    (file,) = folder.glob("logs/wandb/wandb/*run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines], file.parent


def sync(folder):
    """Upload the local files in a folder, the oldest first."""
    folders = sorted(map(str, folder.glob("offline-run-*")))
    subprocess.run([sys.executable, "-m", "wandb", "sync", *folders], check=True, capture_output=True)


def check_rows(rows, but=frozenset()):
    """One row for each five steps, with everything that is measured then."""
    assert [row["step"] for row in rows] == list(range(5, 61, 5))
    for row in rows:
        expected = {m for m in METRICS if row["step"] % 10 == 0 or not m.startswith(("val/", "samples", "attention"))}
        if row["step"] % 20 == 0:
            expected |= LAYER_METRICS | HISTOGRAMS
        assert not expected - row.keys() - but


def check_samples(tables, steps):
    """The parts of a growing table: one sample for each step, with its prompt and how likely it is."""
    assert [table["columns"] for table in tables] == [SAMPLE_COLUMNS] * len(steps)
    samples = [sample for table in tables for sample in table["data"]]
    assert [step for step, *_ in samples] == steps
    for _, prompt, text, log_probability in samples:
        assert text.startswith(prompt) and len(text) == len(prompt) + 8 and -5 < log_probability < 0


@pytest.fixture
def service(tmp_path_factory):
    """The address of a service of wandb that runs already, in another directory, as below `wandb agent`."""
    code = "import os, sys, wandb; wandb.setup().ensure_service(); print(os.environ['WANDB_SERVICE'], flush=True)"
    command = [sys.executable, "-c", f"{code}; sys.stdin.read()"]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with subprocess.Popen(command, cwd=elsewhere, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def test_an_offline_run_has_it_all(tmp_path, service):
    done = train(tmp_path, *TRAIN, mode="offline", WANDB_SERVICE=service)
    assert done.returncode == 0, done.stderr
    found, folder = records(tmp_path)
    kinds = {kind: [record[kind] for record in found if record["type"] == kind] for kind in {r["type"] for r in found}}
    run = kinds["run"][0]
    assert run["display_name"] == NAME and run["run_group"] == "ours" and run["job_type"] == "trial"
    assert run["notes"] == "why" and run["tags"] == ["a", "b"] and run["entity"] == "me" and run["git"]["commit"]
    rows = [item["item"] for item in kinds["history"]]
    check_rows([row | {key.removesuffix("._type"): True for key in row if "_type" in key} for row in rows])
    image = next(folder / "files" / row["attention.path"] for row in rows if "attention.path" in row)
    assert image.read_bytes().startswith(b"\x89PNG")
    metrics = {metric.get("name", metric.get("glob_name")): metric for metric in kinds["metric"]}
    assert metrics["step"]["options"]["hidden"] and metrics["*"]["step_metric"] == "step"
    tables = [json.loads((folder / "files" / row["samples.path"]).read_text()) for row in rows if "samples.path" in row]
    check_samples(tables, [10, 20, 30, 40, 50, 60])
    assert "completed at step 60" in (folder / "files/output.log").read_text()
    config = run["config"]["update"]
    assert config["model"] == "nano" and config["optimizer.lr"] == 0.01 and config["debug"] == "fast"
    assert len(config) < 60 and not any("_target_" in key or key.startswith(("paths", "logger")) for key in config)


def die_at(step):
    """Make the training kill itself, as a machine that fails does, when a step is over."""
    measure = Metrics.measure

    def measure_and_die(self, trainer, pl_module):
        if trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return measure(self, trainer, pl_module)

    Metrics.measure = measure_and_die


def test_an_online_run_that_was_killed_is_continued_without_a_gap_or_a_double_step(tmp_path, server):
    assert train(tmp_path, *TRAIN, before=partial(die_at, 35)).returncode == -signal.SIGKILL
    done = train(tmp_path, "resume=latest", "logger.wandb.log_model=true")
    assert done.returncode == 0 and not done.stderr, done.stderr
    (run,) = server.runs.values()
    check_rows(run.rows, but=MEDIA)  # what was not sent before the kill is taken from metrics.csv
    check_samples(server.tables(run)[-3:], [40, 50, 60])
    assert run.resumed == 1 and run.exit_codes == [0] and run.name == NAME and not run.is_preempting
    assert set(FIGURES) <= run.summary.keys() and run.summary["val/loss"]["min"] == run.summary["val_loss_best"]
    assert run.attributes["groupName"] == "ours" and run.attributes["jobType"] == "trial" and run.attributes["commit"]
    assert run.config["model"] == "nano" and run.config["trainer.max_steps"] == 60
    assert b"completed at step 60" in run.files["output.log"]
    assert server.url in done.stdout, "the address of the run"
    options = [f"run=wandb:me/minigpt/{run.id}", "prompt=B", "max_new_tokens=8", "paths.log_dir=elsewhere"]
    done = run_command("generate.py", options, tmp_path, os.environ)
    assert done.returncode == 0 and done.stdout.startswith("B"), done.stderr


def test_an_offline_run_that_was_killed_is_continued_without_a_gap_or_a_double_step(logger, server, tmp_path):
    first = logger("1", "offline")
    for step in (1, 2, 3, 4):
        first.log_metrics({"train/loss": 1 / step}, step)
        first.log_sample(step, "a", "ab", -1.0)
    first.finish(1)
    for checkpoint in (3, 6):  # with more steps in the local files than the checkpoint has, and with fewer
        rows = [{"step": step, "train/loss": 1 / step} for step in range(1, checkpoint + 1)]
        write_metrics(tmp_path / "1" / "metrics.csv", ["step", "train/loss"], rows)
        again = logger("1", "offline", **first.known)
        for step in (checkpoint + 1, checkpoint + 2):
            again.log_metrics({"train/loss": 1 / step}, step)
        again.finish(0)
    assert not server.runs
    sync(tmp_path / "wandb/wandb")
    (run,) = server.runs.values()
    assert [(row["step"], row["train/loss"]) for row in run.rows] == [(step, 1 / step) for step in range(1, 9)]
    assert [table["data"] for table in server.tables(run)] == [[[step, "a", "ab", -1.0]] for step in (1, 2, 3, 4)]
    assert run.name == "seed=1" and run.exit_codes == [1, 0, 0]


def test_two_runs_of_one_process_are_two_with_their_own_exit_codes(logger, server):
    for name, exit_code in (("failed", 1), ("interrupted", 130)):
        run = logger(name)
        run.start()
        run.log_metrics({"train/loss": 2.0}, step=1)
        run.finish(exit_code)
    failed, interrupted = server.runs.values()
    assert (failed.name, failed.exit_codes, failed.is_preempting) == ("seed=failed", [1], False)
    assert (interrupted.name, interrupted.exit_codes, interrupted.is_preempting) == ("seed=interrupted", [130], True)
    assert [row["train/loss"] for row in failed.rows] == [row["train/loss"] for row in interrupted.rows] == [2.0]


@pytest.mark.parametrize("hangs", [False, True], ids=["gone", "silent"])
def test_a_server_that_dies_costs_a_line(logger, server, capfd, hangs):
    run = logger("1")
    run.start()
    server.dies_after, server.hangs = 0, hangs
    begun = time.monotonic()
    for step in range(1, 9):
        run.log_metrics({"train/loss": 1 / step}, step)
        run.log_sample(step, "a", "ab", -1.0)
    assert time.monotonic() - begun < 10, "it waits for one answer, not for each"
    run.finish(0)
    assert time.monotonic() - begun < 25
    errors = capfd.readouterr().err.splitlines()
    assert errors and all(line.startswith("W&B ") for line in errors) and len(errors) <= 2


def log_eight_steps(run, begun, folder):
    """Log, and end the run; nothing of it may take long, and the local file has it all."""
    for step in range(1, 9):
        run.log_metrics({"train/loss": 1 / step}, step)
        run.log_sample(step, "a", "ab", -1.0)
    run.finish(0)
    assert time.monotonic() - begun < 20
    (file,) = folder.glob("wandb/wandb/offline-run-*/run-*.wandb")
    assert file.stat().st_size > 1000


@pytest.mark.parametrize("refusal", [401, 403, 500, "silent", "nobody", "key"])
def test_a_server_that_cannot_be_used_costs_a_line(logger, server, tmp_path, monkeypatch, capfd, refusal):
    if refusal == "silent":
        server.dies_after, server.hangs = 0, True
    elif refusal == "nobody":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    elif refusal == "key":
        monkeypatch.setenv("WANDB_API_KEY", "short")
    else:
        server.status = refusal
    wandb.teardown()
    begun = time.monotonic()
    run = logger("1")
    run.start()
    log_eight_steps(run, begun, tmp_path)
    says = {
        401: "refuses this run (error 401)",
        403: "refuses this run (error 403)",
        "key": "refuses this run (WANDB_API_",
    }
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"W&B {says.get(refusal, 'does not answer: ')}") and line.endswith("run is logged offline")


@pytest.mark.parametrize("begins", ["full", "is no folder"])
def test_a_disk_that_cannot_be_written_costs_a_line(logger, tmp_path, monkeypatch, capfd, begins):
    def full(dir):
        raise OSError(errno.ENOSPC, "No space left on device")

    if begins == "full":
        monkeypatch.setattr("tempfile.TemporaryFile", full)
    else:
        (tmp_path / "wandb").write_text("")
    run = logger("1", "offline")
    run.log_metrics({"train/loss": 2.0}, 1)
    run.log_sample(1, "a", "ab", -1.0)
    run.summarize({"parameters": 1})
    run.finish(0)
    (line,) = capfd.readouterr().err.splitlines()
    reason = "No space left on device" if begins == "full" else "File exists"
    assert line.startswith("W&B cannot write to ") and f"({reason}): this run is not logged there" in line
    assert run.mode == "disabled" and run.folder is None


def test_the_best_checkpoint_is_an_artifact_of_a_run_that_wants_it(logger, server, tmp_path):
    for mode in ("online", "offline"):
        run = logger(mode, mode, log_model=True)
        run.log_metrics({"train/loss": 2.0}, step=1)
        run.finish(0)
    sync(tmp_path / "wandb/wandb")
    assert len(server.runs) == len(server.artifacts) == 2
    for run_id, artifact in zip(server.runs, server.artifacts.values(), strict=True):
        assert artifact["artifactCollectionName"] == f"model-{run_id}"
        assert {alias["alias"] for alias in artifact["aliases"]} == {"best", "latest"} and artifact["committed"]
        assert server.stored[artifact["entries"]["best.ckpt"]] == b"the weights"
    run_id = next(iter(server.runs))
    for reference in (f"wandb:me/test/{run_id}", f"wandb:me/test/model-{run_id}:latest"):
        assert download_checkpoint(reference, tmp_path / reference[-6:]).read_text() == "the weights"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("wandb:me/test/nothing", "model-nothing:best cannot be had"),
        ("wandb:me/test", "must be wandb:ENTITY/PROJECT/RUN"),
        ("wandb:me/../../x", "must be wandb:ENTITY/PROJECT/RUN"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_one_line(server, tmp_path, reference, message):
    with pytest.raises(ValueError, match=message) as caught:
        download_checkpoint(reference, tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_download_without_a_key_asks_for_none(server, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ValueError, match="wandb login"):
        download_checkpoint("wandb:me/test/abc", tmp_path)


def test_a_sweep_s_agent_gives_the_id(logger, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    assert logger("1", "disabled").version == "abc"


@pytest.mark.parametrize("end", ["min", "max"])
def test_the_agent_of_a_sweep_runs_a_command_that_exists(end):
    sweep = yaml.safe_load((ROOT / "sweep.yaml").read_text())
    given = {name: choice[end] for name, choice in sweep["parameters"].items()}
    assert sweep["command"][:3] == ["${env}", "${interpreter}", "${program}"] and (ROOT / sweep["program"]).is_file()
    assert sweep["command"][-1] == "${args_no_hyphens}" and sweep["metric"]["name"] in SUMMARIZED
    overrides = sweep["command"][3:-1] + [f"{name}={value}" for name, value in given.items()]
    config = compose_config(*overrides)
    assert given.items() <= readable_config(config, {}).items(), "under the names that W&B has for the parameters"
    assert short_name(overrides).startswith("dev_split=true lr=")


def test_only_a_server_is_given_little_time():
    """Without one there is nothing but the local file, which a busy machine may take long to write."""
    online, offline = wandb_settings("online"), wandb_settings("offline")
    assert online.init_timeout < 2 and online.finish_timeout <= 2
    assert min(offline.init_timeout, offline.finish_timeout) >= 30
