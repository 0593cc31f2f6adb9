"""The commands as a user meets them: real processes, real files."""

import csv
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from tests.forkserver import run_command

from minigpt.cli import exit_on_signals

ROOT = Path(__file__).parents[1]
TINY = ["debug=fast", "paths.runs_dir=${paths.log_dir}/runs", "precision=32-true", "trainer.log_every_n_steps=1"]


def only_run(folder: Path) -> Path:
    (run,) = (folder / "logs" / "runs").iterdir()
    return run


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def column(run: Path, name: str) -> list[float]:
    return [float(row[name]) for row in metrics(run) if row[name]]


def ok(done):
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One finished tiny run; read only."""
    folder = tmp_path_factory.mktemp("trained")
    done = run_command("train.py", [*TINY, "paths.log_dir=logs", "paths.data_dir=data"], folder, os.environ)
    return folder, ok(done), only_run(folder)


@pytest.fixture
def cli_there(trained):
    """A cli in the folder of the finished run."""

    def run(script, *options):
        return run_command(script, options, trained[0], os.environ)

    return run


def test_a_run_leaves_what_the_design_says(trained):
    _, done, run = trained
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_debug-[0-9a-f]{6}", run.name)
    names = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    assert names == {
        *("config.yaml", "metrics.csv", "summary.json", "train.log", "samples.md"),
        *(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")),
        *(f"checkpoints/{name}.ckpt" for name in ("best", "last", "step_10", "step_20")),
    }
    assert done.stderr == "", "nothing to worry a user with"
    for command in ("src/generate.py", "src/evaluate.py", "src/train.py resume="):
        assert command in done.stdout


def test_the_summary_says_what_came_of_it(trained):
    _, _, run = trained
    summary = json.loads((run / "summary.json").read_text())
    wanted = (
        "status steps tokens wall_clock_s train_s parameters val_loss val_loss_best val_loss_best_step tokens_per_s"
    )
    wanted += " seed precision strategy devices git_commit best_checkpoint last_checkpoint"
    assert set(wanted.split()) <= set(summary)
    assert (summary["status"], summary["steps"], summary["tokens"]) == ("completed", 20, 20 * 8 * 32)
    assert summary["val_loss_best"] == min(column(run, "val/loss")) < 3.0
    assert 0 < summary["train_s"] < summary["wall_clock_s"]


def test_checkpoints_hold_plain_data(trained):
    checkpoint = torch.load(trained[2] / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 20
    assert str(ROOT) not in str(checkpoint["minigpt"])


def test_evaluate_repeats_the_best_validation_loss(trained, cli_there):
    found = json.loads(ok(cli_there("evaluate.py", "run=latest")).stdout)
    best = json.loads((trained[2] / "summary.json").read_text())["val_loss_best"]
    assert found["val_loss"] == pytest.approx(best, abs=1e-4)
    assert found["tokens"] == 1999 and found["step"] == 20


def test_evaluate_scores_another_text(trained, cli_there):
    other = trained[0] / "other.txt"
    other.write_text("ALDO:\nThe lantern and the harbour.\n")
    found = json.loads(ok(cli_there("evaluate.py", "run=latest", f"eval_text={other}")).stdout)
    assert found["tokens"] == len(other.read_text()) - 1
    other.write_text("Ω")
    refused = cli_there("evaluate.py", f"run={trained[2]}", f"eval_text={other}")
    assert refused.returncode == 2 and "outside the vocabulary: 'Ω'" in refused.stderr


def test_generate_repeats_itself_for_a_seed(cli_there):
    options = ["run=latest", "prompt=ALDO:", "max_new_tokens=80"]
    first, again = (ok(cli_there("generate.py", *options)).stdout for _ in range(2))
    assert first == again
    assert first.startswith("ALDO:") and len(first) == 5 + 80 + 1


@pytest.mark.parametrize("text", ["And, if thou wilt,", "I; all's well", "Say 'no'"])
def test_a_prompt_is_continued_as_it_is_typed(cli_there, trained, tmp_path, text):
    known = "".join(c for c in text if c in (trained[0] / "data/synthetic/20000-1.txt").read_text())
    options = ["run=latest", "max_new_tokens=5"]
    typed = ok(cli_there("generate.py", *options, f"prompt={known}")).stdout
    file = tmp_path / "prompt.txt"
    file.write_text(f"{known}\n")
    assert typed == ok(cli_there("generate.py", *options, f"prompt_file={file}")).stdout
    assert typed.startswith(known) and len(typed) == len(known) + 6


def test_the_example_prompt_is_one_of_the_text_s_own(cli_there, trained):
    (line,) = [line for line in trained[1].stdout.splitlines() if line.startswith("generate ")]
    words = shlex.split(line)[3:]
    assert words[1].removeprefix("prompt=") == (trained[0] / "data/synthetic/20000-1.txt").read_text().splitlines()[0]
    assert ok(cli_there("generate.py", *words, "max_new_tokens=5")).stdout.startswith(words[1].removeprefix("prompt="))


def test_every_file_of_a_run_has_the_permissions_of_the_umask(tmp_path):
    options = [*TINY, "trainer.max_steps=2", "paths.log_dir=logs", "paths.data_dir=data"]
    ok(run_command("train.py", options, tmp_path, os.environ, before=partial(os.umask, 0o002)))
    for output in ("model.safetensors", "folder"):
        export = ["run=latest", f"output={output}", "paths.log_dir=logs"]
        ok(run_command("export.py", export, tmp_path, os.environ, before=partial(os.umask, 0o002)))
    modes = {str(p): oct(p.stat().st_mode & 0o777) for p in tmp_path.rglob("*") if p.is_file()}
    assert len(modes) > 10 and set(modes.values()) == {"0o664"}, modes


def test_several_samples_are_drawn_side_by_side(cli_there):
    options = ["run=latest", "prompt=ALDO:", "max_new_tokens=40", "num_samples=3"]
    first, *samples = ok(cli_there("generate.py", *options)).stdout.split("--- ")
    assert first == "" and [s[0] for s in samples] == ["1", "2", "3"]
    assert len(set(samples)) == 3 and all(s[2:7] == "ALDO:" and len(s) == 2 + 5 + 40 + 1 for s in samples)


def test_generate_names_characters_that_the_model_does_not_know(cli_there):
    refused = cli_there("generate.py", "run=latest", "prompt='Ωmega'")
    assert refused.returncode == 2 and "'Ω'" in refused.stderr and len(refused.stderr.splitlines()) == 1


def test_generate_streams(trained):
    command = [sys.executable, ROOT / "src" / "generate.py", "run=latest", "prompt=ALDO:", "max_new_tokens=100000"]
    with subprocess.Popen(command, cwd=trained[0], stdout=subprocess.PIPE) as process:
        assert process.stdout.read(300).startswith(b"ALDO:"), "text comes long before the end"
        process.kill()


@pytest.mark.parametrize("option", ["--help", "--cfg=job"])
def test_help_needs_no_heavy_imports(option):
    code = f"""
import runpy, sys
sys.path.insert(0, "src")
sys.argv = ["train.py", {option!r}]
try:
    runpy.run_path("src/train.py", run_name="__main__")
except SystemExit as end:
    assert not end.code
assert not {{"torch", "lightning", "wandb"}} & set(sys.modules)
"""
    done = ok(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60))
    assert "num_layers" in done.stdout


COUNTS = """
    experiment=classics/ngram model.table_size=1024 model.block_size=32 data=synthetic data.num_chars=20000
    data.batch_size=4 trainer.max_steps=20 trainer.log_every_n_steps=1 precision=32-true
""".split()


@pytest.mark.parametrize("run", [[*TINY, "model.dropout=0.1"], COUNTS], ids=["dropout", "counts"])
def test_a_resumed_run_equals_an_uninterrupted_one(cli, tmp_path, run):
    """With dropout or counts, accumulation, and validations that fall elsewhere than the resumed step."""
    # A warm-up depends on the step but not on the length of the run, which differs here.
    options = [*run, "scheduler=constant", "scheduler.warmup_steps=18"]
    options += ["trainer.accumulate_grad_batches=2", "trainer.val_every_n_steps=7"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ok(cli("train.py", *options, f"paths.run_dir={whole}"))
    ok(cli("train.py", *options, f"paths.run_dir={parts}", "trainer.max_steps=14"))
    ok(cli("train.py", f"resume={parts}", "trainer.max_steps=20"))
    for name in ("train/loss", "val/loss", "optim/grad_norm", "optim/lr"):
        one, two = ([(r["step"], r[name]) for r in metrics(run) if r[name]] for run in (whole, parts))
        assert one == two, name
    one, two = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (whole, parts))
    assert all(torch.equal(one["state_dict"][k], two["state_dict"][k]) for k in one["state_dict"])


def test_a_complete_run_says_how_to_go_on(cli_there, trained):
    done = cli_there("train.py", "resume=latest")
    assert done.returncode == 2 and "trainer.max_steps=N" in done.stderr
    done = cli_there("train.py", "resume=latest", "model=small", "trainer.max_steps=30")
    assert done.returncode == 2 and "its own model" in done.stderr


def test_another_run_is_refused_unless_it_is_wanted(cli, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained[2], run)
    options = [f"resume={run}", "trainer.max_steps=22", "optimizer.lr=0.03", "data.seed=7"]
    options += [f"paths.data_dir={trained[0] / 'data'}"]
    refused = cli("train.py", *options)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert "optimizer.lr: 0.02 -> 0.03" in refused.stderr and "data.seed: 1 -> 7" in refused.stderr
    ok(cli("train.py", *options, "ignore_fingerprint=true"))
    assert json.loads((run / "summary.json").read_text())["steps"] == 22


def test_auto_starts_goes_on_and_falls_back(cli, tmp_path):
    run = tmp_path / "run"
    command = ["train.py", *TINY, "resume=auto", f"paths.run_dir={run}", "scheduler=constant"]
    ok(cli(*command, "trainer.max_steps=11"))
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"status": "interrupted"}))
    newest = run / "checkpoints" / "step_11.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    (run / "checkpoints" / ".step_12.ckpt-half").write_bytes(b"half")
    done = ok(cli(*command, "trainer.max_steps=20"))
    assert "step_11.ckpt is damaged" in done.stderr and "resuming after step 10" in done.stdout
    assert json.loads((run / "summary.json").read_text())["steps"] == 20
    steps = [int(row["step"]) for row in metrics(run) if row["train/loss"]]
    assert steps == list(range(1, 21)), "no gap and no row twice"
    assert not list((run / "checkpoints").glob(".*"))


def test_a_gradient_that_is_no_number_stops_before_the_update(cli, tmp_path):
    options = [*TINY, "optimizer=sgd", "optimizer.lr=1e19", "callbacks.checkpoints.every_n_steps=1"]
    done = cli("train.py", *options, f"paths.run_dir={tmp_path / 'run'}")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "gradient norm is" in done.stderr and "learning rate of 1e+19" in done.stderr
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "failed"


CLOSED_PIPE = None
is_nohup = pytest.mark.skipif(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, reason="SIGHUP is ignored here")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=is_nohup),
        (CLOSED_PIPE, 141),
    ],
)
def test_a_signal_saves_and_leaves(tmp_path, number, code):
    command = [sys.executable, ROOT / "src" / "train.py", *TINY, "trainer.max_steps=100000", "callbacks.samples=null"]
    command += ["trainer.val_every_n_steps=100000", "paths.log_dir=logs", "paths.data_dir=data"]
    command += ["+callbacks.progress.line_every_s=0.1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("step"):
                break
        process.stdout.close()
        if number is not CLOSED_PIPE:
            process.send_signal(number)
        begin = time.monotonic()
        process.wait(timeout=60)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == code and time.monotonic() - begin < 30
    run = only_run(tmp_path)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert (run / "checkpoints" / f"step_{summary['steps']}.ckpt").is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=is_nohup)])
def test_a_signal_before_the_first_step_exits_as_ctrl_c_does(number):
    previous = signal.getsignal(number)
    try:
        exit_on_signals()
        with pytest.raises(SystemExit) as end:
            signal.raise_signal(number)
    finally:
        signal.signal(number, previous)
    assert end.value.code == 128 + number


def nobody_left(group: int) -> bool:
    """Whether all processes of a group end within ten seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_a_signal_stops_all_processes(tmp_path):
    command = [sys.executable, ROOT / "src" / "train.py", *TINY, "trainer.max_steps=100000", "trainer.devices=2"]
    command += ["trainer.val_every_n_steps=100000", "paths.log_dir=logs", "paths.data_dir=data"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        for line in process.stdout:
            if line.startswith("step"):
                break
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and output.count("SIGINT: finishing this step and saving; Ctrl-C again ends") == 1
    summary = json.loads((only_run(tmp_path) / "summary.json").read_text())
    assert summary["status"] == "interrupted" and summary["last_checkpoint"]
    assert nobody_left(process.pid)


def test_two_processes_train_as_one(cli, tmp_path):
    options = [*TINY, "trainer.max_steps=12"]
    runs = [tmp_path / f"on{n}" for n in (1, 2)]
    for n, run in enumerate(runs, start=1):
        ok(cli("train.py", *options, f"trainer.devices={n}", f"paths.run_dir={run}"))
    one, two = runs
    assert column(two, "train/loss") == pytest.approx(column(one, "train/loss"), abs=1e-4)
    assert column(two, "val/loss") == pytest.approx(column(one, "val/loss"), abs=1e-4)
    assert json.loads((two / "summary.json").read_text())["devices"] == 2


def test_sharded_training_equals_one_device_and_leaves_a_whole_checkpoint(cli, tmp_path):
    options = [*TINY, "trainer.max_steps=4", "trainer.val_every_n_steps=4"]
    ok(cli("train.py", *options, f"paths.run_dir={tmp_path / 'one'}"))
    ok(cli("train.py", *options, "trainer=fsdp", "trainer.max_steps=4", f"paths.run_dir={tmp_path / 'sharded'}"))
    one, sharded = tmp_path / "one", tmp_path / "sharded"
    assert column(sharded, "train/loss") == pytest.approx(column(one, "train/loss"), abs=1e-4)
    found = json.loads(ok(cli("evaluate.py", f"run={sharded}")).stdout)
    assert found["val_loss"] == pytest.approx(column(one, "val/loss")[0], abs=1e-4)


def test_a_quiet_run_prints_its_result_alone(cli, tmp_path):
    done = ok(cli("train.py", *TINY, "trainer.max_steps=4", "quiet=true", f"paths.run_dir={tmp_path / 'run'}"))
    lines = [line for line in done.stdout.splitlines() if not line.startswith(tuple("╭│╰"))]  # a box is a warning
    assert [line.split()[0] for line in lines] == ["validation", "4", "everything"] and not done.stderr
    assert "synthetic text" in done.stdout


def ranking(tmp_path):
    (sweep,) = (tmp_path / "logs" / "sweeps").iterdir()
    return sweep, json.loads((sweep / "ranking.json").read_text())


def test_a_sweep_runs_each_job_once_and_ranks_them(cli, tmp_path):
    done = ok(cli("train.py", "-m", *TINY, "logger=wandb", "optimizer=adamw,muon", "seed=1,2", "trainer.max_steps=8"))
    sweep, rows = ranking(tmp_path)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert {row["overrides"] for row in rows} == {f"optimizer={o} seed={s}" for o in ("adamw", "muon") for s in (1, 2)}
    losses = [row["val_loss_best"] for row in rows]
    assert losses == sorted(losses) and len(set(losses)) == 4
    files = {f"{name}.{kind}" for name in ("ranking", "configurations") for kind in ("csv", "json")}
    assert {p.name for p in sweep.iterdir()} == {"0", "1", "2", "3", "multirun.yaml", *files}
    assert len(list((tmp_path / "logs/wandb/wandb").glob("offline-run-*"))) == 4
    with (sweep / "ranking.csv").open() as file:
        assert [row["job"] for row in csv.DictReader(file)] == [str(row["job"]) for row in rows]
    assert "2 configurations of 4 runs, the best first" in done.stdout and "paired over 2 seeds" in done.stdout
    summaries = [json.loads((sweep / str(i) / "summary.json").read_text()) for i in range(4)]
    first, *lines = done.stdout.splitlines()[:5]
    assert first == f"4 jobs, each with an output.log in {sweep}" and not done.stderr
    for job, (line, summary) in enumerate(zip(lines, summaries, strict=True)):
        name = f"optimizer={('adamw', 'muon')[job // 2]} seed={job % 2 + 1}"
        assert line.startswith(f"[{job + 1}/4] {name}  completed  val loss {summary['val_loss_best']:.4f}  ")
        assert line.endswith(f" s  {job}/output.log")
        assert "validation loss" in (sweep / str(job) / "output.log").read_text()
    assert len({summary["wandb_id"] for summary in summaries}) == 4
    assert {summary["wandb_name"] for summary in summaries} == {row["overrides"] for row in rows}


@pytest.mark.parametrize(
    ("options", "devices"),
    [(["optimizer.lr=1e-3,3e-3", "trainer.devices=2"], [2, 2]), (["trainer.devices=2,1"], [2, 1])],
)
def test_a_sweep_over_several_devices(cli, tmp_path, options, devices):
    done = ok(cli("train.py", "-m", *TINY, "trainer.max_steps=4", "hydra.launcher.show_output=true", *options))
    sweep, rows = ranking(tmp_path)
    assert done.stdout.count("validation loss") == 2 and not list(sweep.rglob("output.log"))
    assert len(rows) == 2 and not (tmp_path / "logs" / "runs").exists()
    found = [json.loads((sweep / str(i) / "summary.json").read_text()) for i in range(2)]
    assert [s["devices"] for s in found] == devices
    assert all(s["steps"] == 4 and s["status"] == "completed" for s in found)
    assert all(len(column(sweep / str(i), "train/loss")) == 4 for i in range(2)), "no row twice"


def test_a_failing_job_does_not_end_the_sweep(cli, tmp_path):
    # Job 0's text is fine for the checks and too short once it is cut into blocks.
    done = cli("train.py", "-m", *TINY, "trainer.max_steps=4", "data.num_chars=1000,20000", "model.block_size=480")
    assert done.returncode == 1
    sweep, rows = ranking(tmp_path)
    assert [(row["job"], row["status"]) for row in rows] == [(1, "completed"), (0, "failed")]
    error = rows[1]["error"]
    assert done.stderr == f"error: job 0: {error}\n" and f"error: {error}\n" == (sweep / "0/output.log").read_text()
    assert "too short for block_size 480" in error


def test_evaluate_cuts_the_text_as_the_training_did(cli, tmp_path):
    run = tmp_path / "run"
    options = ["data.block_size=16", "data/tokenizer=bpe", "trainer.max_steps=4"]
    ok(cli("train.py", *TINY, *options, f"paths.run_dir={run}"))
    found = json.loads(ok(cli("evaluate.py", f"run={run}")).stdout)
    assert found["val_loss"] == pytest.approx(column(run, "val/loss")[-1], abs=1e-5)
    assert found["val_bpc"] == pytest.approx(column(run, "val/bpc")[-1], abs=1e-5)
    nats = found["val_loss"] * (found["tokens"] + 1)  # the first token has none before it
    assert found["characters"] == 2000 and found["val_bpc"] == pytest.approx(nats / 2000 / math.log(2))


def test_early_stopping(cli, tmp_path):
    options = ["callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer=sgd", "optimizer.lr=1e-9"]
    ok(cli("train.py", *TINY, *options, "trainer.max_steps=100", f"paths.run_dir={tmp_path / 'run'}"))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] < 50


def test_tensorboard(cli, tmp_path):
    ok(cli("train.py", *TINY, "logger=tensorboard", f"paths.run_dir={tmp_path / 'run'}"))
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


@pytest.mark.parametrize("model", ["bigram", "nano model/preset=gpt2", "nano model/attention=gqa model/mlp=swiglu"])
def test_other_models_train_and_generate(cli, tmp_path, model):
    options = [
        "data=synthetic",
        "data.num_chars=20000",
        "logger=csv",
        "trainer.max_steps=5",
        f"paths.run_dir={tmp_path / 'run'}",
    ]
    ok(cli("train.py", *[f"model={part}" if i == 0 else part for i, part in enumerate(model.split())], *options))
    text = ok(cli("generate.py", f"run={tmp_path / 'run'}", "prompt=ALDO", "max_new_tokens=20")).stdout
    assert text.startswith("ALDO") and len(text) == 25


def test_a_checkpoint_alone_is_enough(trained, cli_there, tmp_path):
    alone = tmp_path / "alone.ckpt"
    shutil.copy(trained[2] / "checkpoints" / "best.ckpt", alone)
    assert ok(cli_there("generate.py", f"run={alone}", "prompt=A", "max_new_tokens=5")).stdout.startswith("A")


def prepared(monkeypatch, *options, run_dir=".", **environment):
    """The checked configuration of a training command, and Hydra's, without a process of its own."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from minigpt.cli import prepare
    from minigpt.config.packaged import CONF

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", list(options), return_hydra_config=True)
    config.hydra.run.dir = run_dir
    config.hydra.mode = "RUN"
    HydraConfig.instance().set_config(config)
    own = config.copy()
    with open_dict(own):
        del own["hydra"]
    return prepare(own, "train"), HydraConfig.get()


def test_further_ranks_resume_the_run_of_the_first(monkeypatch, tmp_path):
    """Lightning starts them with the same command line; by then `latest` may be another run."""
    log_dir = f"paths.log_dir={tmp_path}"
    config, _ = prepared(monkeypatch, log_dir)
    for name in ("2026-01-01_00-00-00_older", "2026-01-02_00-00-00_newer"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").write_text(yaml.safe_dump(config))
    older, newer = sorted(map(str, (tmp_path / "runs").iterdir()))
    config, hydra = prepared(monkeypatch, log_dir, "resume=latest")
    assert config["resume"] == newer == hydra.run.dir, "which Lightning hands on"
    config, _ = prepared(monkeypatch, log_dir, "resume=latest", run_dir=older, LOCAL_RANK="1")
    assert config["resume"] == older


def test_a_run_is_resumed_on_two_devices(cli, tmp_path):
    ok(cli("train.py", *TINY, "trainer.max_steps=4", "trainer.val_every_n_steps=4"))
    ok(cli("train.py", "resume=latest", "trainer.max_steps=8", "trainer.devices=2"))
    summary = json.loads((only_run(tmp_path) / "summary.json").read_text())
    assert (summary["devices"], summary["steps"]) == (2, 8)
    assert [int(r["step"]) for r in metrics(only_run(tmp_path)) if r["train/loss"]] == list(range(1, 9))


@pytest.mark.parametrize(
    ("command", "options", "groups"),
    [
        (
            "train",
            "seed tags resume ignore_fingerprint quiet precision model trainer",
            "model model/attention data/sampler debug",
        ),
        ("evaluate", "run eval_text average_last_n num_decode_lines", ""),
        ("generate", "run prompt temperature top_k stop num_beams", ""),
        ("export", "run output average_last_n", ""),
        ("report", "runs", ""),
        ("playground", "run host port open_browser", ""),
    ],
)
def test_help_explains_the_command_s_own_options_and_groups(cli, command, options, groups):
    shown = ok(cli(f"{command}.py", "--help")).stdout
    usage, _, rest = shown.partition("Options:\n")
    listed, _, rest = rest.partition("\nGroups:\n")
    assert f"python src/{command}.py " in usage
    explained = {line.split()[0]: line.split()[1:] for line in listed.splitlines() if line}
    assert set(options.split()) <= set(explained) and all(len(words) >= 2 for words in explained.values())
    assert ("temperature" in explained) == (command == "generate")
    found = set(re.findall(r"^  ([\w/]+)=", rest.partition("\nConfiguration:")[0], re.MULTILINE))
    assert set(groups.split()) <= found
    assert found == {"paths"} or command == "train"
    assert "hydra" not in "".join(found)
    assert all(len(line) <= 80 for line in (usage + listed + rest).partition("\nConfiguration:")[0].splitlines())
    assert "log_dir" in shown.partition("Configuration:")[2], "the composed configuration"


@pytest.mark.parametrize("options", [["--help"], ["run=latest", "prompt=ALDO:", "max_new_tokens=100000"]])
def test_a_closed_pipe_is_no_mistake(trained, options):
    script = "train.py" if options == ["--help"] else "generate.py"
    command = [sys.executable, ROOT / "src" / script, *options]
    with subprocess.Popen(command, cwd=trained[0], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(60) == 0 and process.stderr.read() == b""
