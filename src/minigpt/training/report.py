"""What a run says of itself: at its start, in summary.json, and at its end."""

import logging
import sys
import time
from typing import Any

import torch
from rich.markup import escape

from minigpt import STARTED
from minigpt.model.gpt import count_active_parameters, count_parameters, flops_per_token
from minigpt.runs.directory import CHECKPOINTS, step_of
from minigpt.runs.run import Run, start_log
from minigpt.runs.summary import git_commit, write_summary
from minigpt.training.callbacks.checkpoints import Checkpoints
from minigpt.training.callbacks.graceful_stop import GracefulStop
from minigpt.training.callbacks.metrics import Metrics
from minigpt.training.loggers import CSVLogger, WandB
from minigpt.training.module import LanguageModel
from minigpt.training.terminal import console, show_config, show_end, show_model, show_notice
from minigpt.training.trainer import Trainer

log = logging.getLogger("minigpt")


class Watch:
    """The callbacks whose findings the summary reports; those that the configuration leaves out are added."""

    def __init__(self, trainer: Trainer) -> None:
        self.metrics = find_or_add(trainer, Metrics)
        self.checkpoints = next((c for c in trainer.callbacks if isinstance(c, Checkpoints)), None)
        self.stop = find_or_add(trainer, GracefulStop)
        # A checkpoint holds the state of all callbacks: the one that saves must see a step last.
        trainer.callbacks.sort(key=lambda callback: isinstance(callback, Checkpoints))

    def best(self) -> tuple[float | None, int | None]:
        """The lowest validation loss and its step; the newest loss where no checkpoints are kept."""
        if self.checkpoints is None or self.checkpoints.best_step is None:
            return self.metrics.val.get("val/loss"), None
        return self.checkpoints.best_loss, self.checkpoints.best_step


def find_or_add(trainer: Trainer, kind: type) -> Any:
    """The trainer's callback of a kind."""
    found = next((c for c in trainer.callbacks if isinstance(c, kind)), None)
    if found is None:
        found = kind()
        trainer.callbacks.insert(0, found)
    return found


def find_wandb(trainer: Trainer) -> WandB | None:
    """The trainer's W&B logger."""
    return next((logger for logger in trainer.loggers if isinstance(logger, WandB)), None)


def announce(trainer: Trainer, module: LanguageModel, data: Any, run: Run, config: dict[str, Any]) -> None:
    """Say what is run, and start its log."""
    assert run.directory is not None
    start_log(run.directory)
    wandb = find_wandb(trainer)
    known = {"status": "running", "overrides": run.overrides, "wandb_id": wandb.version if wandb is not None else None}
    write_summary(run.directory, run.earlier | known)
    if wandb is not None:
        wandb.start()  # a second that belongs to no training step
    log.info("start: %s", " ".join(sys.argv))
    show_config(config)
    show_notice(data.notice)
    show_model(module.model, flops_per_token(module.model, data.block_size))
    corpus = data.corpus
    console.print(
        f"text [bold]{escape(data.path)}[/]: {len(corpus.train):,} tokens to train on, "
        f"{len(corpus.val):,} to validate on, vocabulary {corpus.tokenizer.vocab_size}\n"
        f"device [bold]{trainer.strategy.root_device.type}[/] x {trainer.world_size}, precision {trainer.precision}\n"
        f"run directory [bold]{escape(str(run.directory))}[/]"
    )
    if run.checkpoint is not None:
        console.print(f"resuming after step [bold]{step_of(run.checkpoint)}[/] from {run.checkpoint}")
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                logger.cut(step_of(run.checkpoint))


def conclude(
    trainer: Trainer,
    module: LanguageModel,
    data: Any,
    run: Run,
    config: dict[str, Any],
    watch: Watch,
    status: str,
    error: str | None,
) -> None:
    """Write summary.json and show what came of the run."""
    assert run.directory is not None
    metrics, folder = watch.metrics, run.directory / CHECKPOINTS
    every, active = count_parameters(module.model), count_active_parameters(module.model)
    best_loss, best_step = watch.best()
    wandb = find_wandb(trainer)
    tokens = trainer.global_step * data.batch_size * data.block_size
    best, last = (path if path.is_file() else None for path in (folder / "best.ckpt", folder / "last.ckpt"))
    summary = {
        "status": status,
        "error": error,
        "steps": trainer.global_step,
        "tokens": tokens,
        "wall_clock_s": run.earlier.get("wall_clock_s", 0.0) + time.monotonic() - STARTED,
        "train_s": metrics.train_s,
        "parameters": every,
        **({"active_parameters": active} if active < every else {}),
        "text": data.path,
        "val_loss": metrics.val.get("val/loss"),
        "val_bpc": metrics.val.get("val/bpc"),
        "val_loss_best": best_loss,
        "val_loss_best_step": best_step,
        "tokens_per_s": tokens / metrics.train_s if metrics.train_s else None,
        "mfu_peak": metrics.peak_name,
        "seed": config["seed"],
        "precision": trainer.precision,
        "strategy": type(trainer.strategy).__name__,
        "devices": trainer.world_size,
        "torch": torch.__version__,
        "git_commit": git_commit(),
        "overrides": run.overrides,
        "wandb_id": wandb.version if wandb is not None else run.earlier.get("wandb_id"),
        "best_checkpoint": str(best) if best else None,
        "last_checkpoint": str(last) if last else None,
    }
    write_summary(run.directory, summary)
    log.info("%s at step %d: val_loss_best %s", status, trainer.global_step, summary["val_loss_best"])
    show_end(status, what_next(summary, run, wandb))
    show_notice(data.notice)


def what_next(summary: dict[str, Any], run: Run, wandb: WandB | None) -> list[str]:
    """What to know and what to do after a run, as lines."""
    lines = []
    if summary["val_loss_best"] is not None:
        step = summary["val_loss_best_step"] or summary["steps"]
        lines.append(
            f"validation loss {summary['val_loss_best']:.4f} at step {step} "
            f"({summary['parameters']:,} parameters, text {summary['text']})"
        )
    if summary["tokens_per_s"]:
        lines.append(
            f"{summary['steps']} steps, {summary['train_s']:.1f} s of training, {summary['wall_clock_s']:.1f} s in all"
            f", {summary['tokens_per_s']:,.0f} tokens/s"
        )
    lines.append(f"everything is in  {run.directory}")
    if summary["best_checkpoint"] or summary["last_checkpoint"]:
        lines.append(f'generate  python src/generate.py run={run.directory} prompt="ROMEO:"')
        lines.append(f"evaluate  python src/evaluate.py run={run.directory}")
    if summary["last_checkpoint"]:
        more = "" if summary["status"] != "completed" else f" trainer.max_steps={2 * summary['steps']}"
        lines.append(f"resume    python src/train.py resume={run.directory}{more}")
    if wandb is not None and wandb.folder is not None:
        if wandb.mode == "offline":
            lines.append(f"curves    wandb leet {wandb.folder}      upload: wandb sync {wandb.folder}")
        else:
            lines.append(f"curves    {wandb.wandb_run.url}")
    return lines
