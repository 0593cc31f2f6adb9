"""What a run shows in a terminal of 80 columns: a bar for each phase, and commands that can be copied."""

import hashlib
import io
import os
import shlex
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from minigpt.training import terminal
from minigpt.training.callbacks import graceful_stop, progress
from minigpt.training.callbacks.metrics import Metrics
from minigpt.training.callbacks.stop_notice import StopNotice

RUN = "logs/runs/2026-11-22_14-05-10_nano-shakespeare_char-3f9a1c"


@pytest.fixture
def screen(monkeypatch):
    """A terminal of 80 columns in place of the console."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, highlight=False, color_system=None)
    for module in (terminal, progress, graceful_stop):
        monkeypatch.setattr(module, "console", console)
    return console


@pytest.fixture
def metrics():
    found = Metrics()
    found.loss, found.val, found.tokens_per_s = 1.234, {"val/loss": 1.2345}, 1_234_567.0
    return found


def trainer_of(**options):
    return SimpleNamespace(is_global_zero=True, max_steps=100_000, loggers=[], num_val_batches=[7], **options)


def test_training_and_validation_have_a_bar_of_one_line(screen, metrics, monkeypatch):
    monkeypatch.setattr(progress, "BAR_EVERY_S", -1.0)
    callback, trainer = progress.ProgressBar(), trainer_of(global_step=50_000, callbacks=[metrics])

    def shown() -> str:
        plain = Console(file=io.StringIO(), width=80)
        plain.print(callback._bar.get_renderable())
        (line,) = plain.file.getvalue().splitlines()
        return line

    callback.on_train_start(trainer, None)
    callback.on_train_batch_end(trainer, None, None, None, 0)
    assert shown().startswith("training") and "50000/100000" in shown()
    assert "loss 1.234  val 1.2345  1,234,567 tokens/s" in shown(), "nothing is cut off"
    callback.on_validation_start(trainer, None)
    assert shown().startswith("validation") and "0/7" in shown() and "step 50000" in shown()
    callback.on_validation_batch_end(trainer, None, None, None, 2)
    assert "3/7" in shown()
    callback.on_validation_end(trainer, None)
    assert shown().startswith("training")
    callback.on_train_end(trainer, None)
    assert "train 1.234" not in screen.file.getvalue(), "one loss is no curve"
    callback.line_every_s = -1.0
    callback.on_train_batch_end(trainer, None, None, None, 0)
    assert "step 50000/100000  loss 1.234" in screen.file.getvalue(), "without a bar there are lines"


def test_the_curve_grows_above_the_bar_and_stays_at_the_end(screen, metrics, monkeypatch):
    monkeypatch.setattr(progress, "BAR_EVERY_S", -1.0)
    callback, trainer = progress.ProgressBar(), trainer_of(global_step=0, callbacks=[metrics])
    callback.on_train_start(trainer, None)
    for trainer.global_step, metrics.loss in ((50_000, 3.0), (60_000, 2.0), (60_001, 2.0)):
        callback.on_train_batch_end(trainer, None, None, None, 0)
    assert callback._bar.curve.train == [(50_000, 3.0), (60_000, 2.0)]
    callback.on_validation_start(trainer, None)
    callback.on_validation_end(trainer, None)
    assert callback._bar.curve.val == [(60_001, 1.2345)]
    plain = Console(file=io.StringIO(), width=80, height=24)
    plain.print(callback._bar.get_renderable())
    *curve, bar = plain.file.getvalue().splitlines()
    assert bar.startswith("training") and len(curve) == 8 and max(map(len, curve)) <= 80
    callback.on_train_end(trainer, None)
    assert screen.file.getvalue().rpartition("\x1b[2K")[2].splitlines() == curve


@pytest.mark.parametrize("kind", ["dumb", "quiet"])
def test_a_terminal_that_cannot_erase_has_no_bar_and_a_quiet_run_has_nothing(monkeypatch, metrics, kind):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={"TERM": "dumb"})
    console = console if kind == "dumb" else Console(file=io.StringIO(), force_terminal=True, quiet=True)
    monkeypatch.setattr(progress, "console", console)
    callback, trainer = progress.ProgressBar(), trainer_of(global_step=100_000, callbacks=[metrics])
    callback.on_train_start(trainer, None)
    callback.on_train_batch_end(trainer, None, None, None, 0)
    callback.on_train_end(trainer, None)
    line = f"step 100000/100000  {progress.describe(trainer)}\n"
    assert console.file.getvalue() == (line if kind == "dumb" else "")


def test_a_quiet_run_prints_warnings_and_its_result(screen):
    screen.quiet = True
    terminal.show_config({"seed": 1})
    terminal.show_warning("another text")
    terminal.show_end("completed", ["validation loss 1.6740"], [("generate", "python src/generate.py")])
    graceful_stop.say_that_it_stops(signal.SIGTERM)
    _, warning, _, *rest = screen.file.getvalue().splitlines()
    assert "another text" in warning
    assert rest == ["validation loss 1.6740", "SIGTERM: finishing this step and saving"] and screen.quiet


def test_without_a_terminal_validation_prints_nothing(monkeypatch, metrics):
    console = Console(file=io.StringIO(), width=160)
    monkeypatch.setattr(progress, "console", console)
    callback, trainer = progress.ProgressBar(), trainer_of(global_step=100_000, callbacks=[metrics])
    callback.on_train_start(trainer, None)
    callback.on_validation_start(trainer, None)
    callback.on_validation_batch_end(trainer, None, None, None, 2)
    callback.on_validation_end(trainer, None)
    callback.on_train_batch_end(trainer, None, None, None, 0)
    assert console.file.getvalue().splitlines() == [f"step 100000/100000  {progress.describe(trainer)}"]


def test_the_end_of_a_run_fits_80_columns_and_can_be_copied(screen):
    command = f"python src/generate.py run={RUN} prompt='First Citizen: and more words'"
    terminal.show_end("completed", [f"validation loss 1.6740 {'word ' * 20}"], [("generate", command)])
    lines = screen.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    shell = "\n".join(lines[-4:-1]).removeprefix("generate")
    assert shlex.split(shell.replace("\\\n", "")) == shlex.split(command)


def test_commands_are_whole_lines_where_there_is_room():
    command = f"python src/evaluate.py run={RUN}"
    assert terminal.fold_command("evaluate", command, 120) == [f"evaluate  {command}"]


def test_a_signal_is_answered_while_torch_computes():
    """Python's own handler has to wait for a call into C, as long as a step of training may be."""
    told: list[tuple[int, float]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    notice = StopNotice({signal.SIGINT}, lambda number: told.append((number, time.monotonic())))
    sent: list[float] = []

    def send() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    try:
        threading.Timer(0.05, send).start()
        hashlib.pbkdf2_hmac("sha256", b"a", b"b", 1_000_000)
        end = time.monotonic()
    finally:
        notice.close()
        signal.signal(signal.SIGINT, before)
    ((number, when),) = told
    assert number == signal.SIGINT and sent[0] <= when < end - (end - sent[0]) / 2
    assert signal.set_wakeup_fd(-1) == -1


def test_the_notice_says_how_to_end_at_once(screen):
    graceful_stop.say_that_it_stops(signal.SIGINT)
    graceful_stop.say_that_it_stops(signal.SIGTERM)
    first, second = screen.file.getvalue().splitlines()
    assert first == "SIGINT: finishing this step and saving; Ctrl-C again ends without saving"
    assert len(first) <= 80
    assert second == "SIGTERM: finishing this step and saving"
