"""The report of a run: what is printed at its start and its end, and summary.json."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape

from minigpt import STARTED
from minigpt.data.datamodule import TextDataModule
from minigpt.inference.scoring import bits_per_character
from minigpt.machine import known_measurements
from minigpt.model.size import count_active_parameters, count_parameters, flops_per_token
from minigpt.runs.commands import evaluate_command, generate_command, resume_command
from minigpt.runs.directory import CHECKPOINTS
from minigpt.runs.log import start_log
from minigpt.runs.run import Run
from minigpt.runs.summary import git_commit, write_summary
from minigpt.training.callbacks import find
from minigpt.training.callbacks.checkpoint_callback import Checkpoints
from minigpt.training.callbacks.metrics import Metrics
from minigpt.training.module import LanguageModel
from minigpt.training.terminal import console, show_config, show_end, show_model, show_warning
from minigpt.training.trainer import Trainer
from minigpt.training.wandb_logger import WandB

log = logging.getLogger("minigpt")
SUMMARIZED = """
    status error steps tokens parameters active_parameters val_loss_best val_loss_best_step val_bpc_best reference_loss
    train_s wall_clock_s tokens_per_s text precision devices git_commit
""".split()  # figures of summary.json that W&B shows beside the curves


def best_loss(trainer: Trainer) -> tuple[float | None, int | None]:
    """The lowest validation loss and its step; the newest loss where no checkpoints are kept."""
    checkpoints, metrics = find(trainer, Checkpoints), find(trainer, Metrics)
    if checkpoints is not None and checkpoints.best_step is not None:
        return checkpoints.best_loss, checkpoints.best_step
    return (metrics.val.get("val/loss") if metrics is not None else None), None


def log_run_start(trainer: Trainer, module: LanguageModel, data: TextDataModule, run: Run) -> None:
    """Start the log and the summary, and print what is trained."""
    assert run.directory is not None
    start_log(run.directory)
    wandb = find(trainer, WandB)
    known = {"status": "running", "overrides": run.overrides, "wandb_id": None}
    known |= wandb.known if wandb is not None else {}
    write_summary(run.directory, run.previous_summary | known)
    if wandb is not None:
        wandb.start(parameters=count_parameters(module.model))  # a second that belongs to no training step
    log.info("start: %s", " ".join(sys.argv))
    log.info(
        "precision %s; measured, times as fast as float32: %s", trainer.precision, known_measurements() or "nothing"
    )
    console.quiet = run.config["quiet"]
    show_config(run.config)
    show_warning(data.warning)
    show_model(module.model, flops_per_token(module.model, data.block_size))
    corpus = data.corpus
    console.print(
        f"text [bold]{escape(data.path)}[/]: {len(corpus.train):,} tokens to train on, "
        f"{len(corpus.val):,} to validate on, vocabulary {corpus.tokenizer.vocab_size}\n"
        f"device [bold]{trainer.strategy.root_device.type}[/] x {trainer.world_size}, precision {trainer.precision}\n"
        f"run directory [bold]{escape(str(run.directory))}[/]"
    )
    if run.plan is not None:
        console.print(f"resuming after step [bold]{run.plan.step}[/] from {run.plan.checkpoint}")


def log_run_end(
    trainer: Trainer, module: LanguageModel, data: TextDataModule, run: Run, status: str, error: str | None
) -> None:
    """Write summary.json, and print the result of the run and what can be done with it."""
    assert run.directory is not None
    wandb = find(trainer, WandB)
    summary = {
        "status": status,
        "error": error,
        **measured(trainer, module, data, run),
        "tags": run.config["tags"],
        "text": data.path,
        "example_prompt": data.example_prompt,
        "reference_loss": run.config["reference_loss"],
        "seed": run.config["seed"],
        "precision": trainer.precision,
        "strategy": type(trainer.strategy).__name__,
        "devices": trainer.world_size,
        "torch": torch.__version__,
        "git_commit": git_commit(),
        "overrides": run.overrides,
        **(wandb.known if wandb is not None else {k: run.previous_summary.get(k) for k in ("wandb_id", "wandb_name")}),
    }
    for name in ("best", "last"):
        path = run.directory / CHECKPOINTS / f"{name}.ckpt"
        summary[f"{name}_checkpoint"] = str(path) if path.is_file() else None
    write_summary(run.directory, summary)
    if wandb is not None:
        wandb.summarize({name: summary.get(name) for name in SUMMARIZED})
    log.info("%s at step %d: val_loss_best %s", status, trainer.global_step, summary["val_loss_best"])
    commands = next_commands(summary, run.directory, wandb, module.objective.can_generate)
    show_end(status, describe_result(summary, run.directory), commands)
    show_warning(data.warning)


def measured(trainer: Trainer, module: LanguageModel, data: TextDataModule, run: Run) -> dict[str, Any]:
    """The figures of a run, by their names in summary.json; times in seconds, losses in nats per token."""
    metrics = find(trainer, Metrics)
    assert metrics is not None
    parameters, active = count_parameters(module.model), count_active_parameters(module.model)
    loss, step = best_loss(trainer)
    tokens = trainer.global_step * data.batch_size * data.block_size
    return {
        "steps": trainer.global_step,
        "tokens": tokens,
        "wall_clock_s": run.previous_summary.get("wall_clock_s", 0.0) + time.monotonic() - STARTED,
        "train_s": metrics.train_s,
        "parameters": parameters,
        **({"active_parameters": active} if active < parameters else {}),
        "flops_per_token": flops_per_token(module.model, data.block_size),
        "val_loss": metrics.val.get("val/loss"),
        "val_bpc": metrics.val.get("val/bpc"),
        "val_loss_best": loss,
        "val_loss_best_step": step,
        "val_bpc_best": None if loss is None else bits_per_character(loss, module.tokens_per_character),
        "tokens_per_s": tokens / metrics.train_s if metrics.train_s else None,
        "mfu_peak": metrics.peak_name,
    }


def describe_result(summary: dict[str, Any], directory: Path) -> list[str]:
    """The result of a run, as lines."""
    lines = []
    if summary["val_loss_best"] is not None:
        step = summary["val_loss_best_step"] or summary["steps"]
        lines.append(
            f"validation loss {summary['val_loss_best']:.4f} ({summary['val_bpc_best']:.3f} bits per character) "
            f"at step {step} ({summary['parameters']:,} parameters, text {summary['text']})"
            + (f", reference {summary['reference_loss']}" if summary["reference_loss"] is not None else "")
        )
    if summary["tokens_per_s"]:
        lines.append(
            f"{summary['steps']} steps, {summary['train_s']:.1f} s of training, {summary['wall_clock_s']:.1f} s in all"
            f", {summary['tokens_per_s']:,.0f} tokens/s"
        )
    return [*lines, f"everything is in {directory}"]


def next_commands(
    summary: dict[str, Any], directory: Path, wandb: WandB | None, can_generate: bool
) -> list[tuple[str, str]]:
    """The commands that use a run, each with what it does."""
    commands = []
    if summary["best_checkpoint"] or summary["last_checkpoint"]:
        if can_generate:
            commands.append(("generate", generate_command(directory, summary["example_prompt"])))
        commands.append(("evaluate", evaluate_command(directory)))
    if summary["last_checkpoint"]:
        is_done = summary["status"] == "completed"
        commands.append(("resume", resume_command(directory, 2 * summary["steps"] if is_done else None)))
    if wandb is not None and wandb.folder is not None:
        if wandb.mode == "offline":
            commands += [("curves", f"wandb leet {wandb.folder}"), ("upload", f"wandb sync {wandb.folder}")]
        else:
            commands.append(("curves", str(wandb.wandb_run.url)))
    return commands
