"""What a sweep shows of its jobs, and where what they print goes."""

import io
import re
import sys
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from hydra_plugins import job_lines, process_launcher
from hydra_plugins.job_lines import OUTPUT, TAIL_BYTES, JobLines, last_error, tail
from hydra_plugins.process_launcher import ProcessLauncher


@pytest.fixture
def screen(monkeypatch):
    """A terminal of 80 columns for a sweep."""
    options = {"force_terminal": True, "width": 80, "color_system": None, "_environ": {"TERM": "xterm"}}
    console = Console(file=io.StringIO(), **options)
    monkeypatch.setattr(job_lines, "Console", lambda highlight: console)
    return console


def shown(lines: JobLines) -> str:
    plain = Console(file=io.StringIO(), width=80)
    plain.print(lines._progress.get_renderable())
    assert all(len(line) <= 80 for line in plain.file.getvalue().splitlines())
    return re.sub(" {2,}", "  ", plain.file.getvalue().strip())


def test_a_running_job_has_a_line_with_its_step_and_loss_and_then_one_with_its_result(screen, capsys):
    with JobLines(4) as lines:
        task = lines.begin(1, "optimizer=muon [a]")
        lines.update(task, "nothing yet")
        assert shown(lines) == "[2/4] optimizer=muon [a]  0:00:00"
        lines.update(task, "step 10/40  loss 3.210  9 tokens/s\nstep 20/40  loss 3.120  val 3.3\nelse\n")
        assert shown(lines) == "[2/4] optimizer=muon [a]  step 20/40  loss 3.120 0:00:00"
        lines.end(task, 1, "optimizer=muon [a]", {"status": "completed", "val_loss_best": 3.25}, 12.34, "1/output.log")
        assert shown(lines) == ""
    line = "[2/4] optimizer=muon [a]  completed  val loss 3.2500  12.3 s  1/output.log"
    assert line in screen.file.getvalue() and not capsys.readouterr().err


def test_a_failed_job_names_its_error_and_its_output(capsys):
    with JobLines(2) as lines:
        lines.end(lines.begin(0, "a=1"), 0, "a=1", {"status": "failed", "error": "too short"}, 1.0, "0/output.log")
    out, err = capsys.readouterr()
    assert (out, err) == ("[1/2] a=1  failed  1.0 s  0/output.log\n", "error: job 0: too short\n")


def test_without_a_terminal_nothing_is_shown_of_a_running_job(capsys):
    with JobLines(1) as lines:
        lines.update(lines.begin(0, "a=1"), "step 1/2  loss 3.0")
    assert capsys.readouterr() == ("", "")


def test_the_end_of_what_a_job_has_printed(tmp_path):
    path = tmp_path / OUTPUT
    assert tail(path) == ""
    path.write_bytes(b"error: one\n" + b"." * TAIL_BYTES + b"\xff\nerror: two\nerror: three\n\n")
    assert len(tail(path)) == TAIL_BYTES and last_error(tail(path)) == "three"
    assert last_error("no error: here\n") is None


@pytest.mark.parametrize("show_output", [False, True])
def test_both_streams_of_a_job_are_in_its_log_or_here(tmp_path, monkeypatch, capfd, show_output):
    monkeypatch.setattr(process_launcher, "LOOK_EVERY_S", 0.01)
    code = "import sys, time; print('out', flush=True); print('err', file=sys.stderr); time.sleep(0.5); sys.exit(7)"
    looked = []
    launcher, log = ProcessLauncher(show_output=show_output), tmp_path / "0" / OUTPUT
    assert launcher.execute([sys.executable, "-c", code], {}, log, looked.append) == 7
    out, err = capfd.readouterr()
    assert (out, err) == (("out\n", "err\n") if show_output else ("", ""))
    assert log.exists() != show_output
    assert show_output or (log.read_text() == "out\nerr\n" and "out\nerr\n" in looked)


def test_ctrl_c_says_what_the_jobs_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(process_launcher, "check", lambda config, command: None)
    monkeypatch.setattr(process_launcher.HydraConfig, "instance", lambda: SimpleNamespace(set_config=lambda job: None))
    launcher = ProcessLauncher()
    launcher.config = OmegaConf.create({"quiet": False, "hydra": {"sweeper": {"n_trials": 9}, "sweep": {"dir": "S"}}})
    loader = SimpleNamespace(load_sweep_config=lambda config, overrides: config)
    launcher.hydra_context = SimpleNamespace(config_loader=loader)

    def interrupted(*job):
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        launcher.launch([["seed=1"], ["seed=2"]], 0)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "9 jobs, each with an output.log in S"
    assert second == "SIGINT: running jobs finish their step and save; Ctrl-C again ends without saving"
