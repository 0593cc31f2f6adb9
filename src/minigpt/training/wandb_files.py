"""The files that a run leaves at Weights & Biases."""

import shutil
from pathlib import Path
from typing import Any

from minigpt.runs.directory import BEST, CHECKPOINTS
from minigpt.runs.log import LOG


def upload_log(wandb_run: Any, directory: Path) -> None:
    """Make `train.log` a file of the run, under the name that W&B shows as its console."""
    path = Path(wandb_run.dir) / "output.log"
    shutil.copyfile(directory / LOG, path)
    wandb_run.save(str(path), base_path=str(path.parent), policy="now")


def upload_model(wandb_run: Any, directory: Path, is_offline: bool) -> None:
    """Make the best checkpoint an artifact of the run; there is none before the first validation."""
    import wandb

    path = directory / CHECKPOINTS / BEST
    if not path.is_file():
        return
    figures = {name: wandb_run.summary.get(name) for name in ("val_loss_best", "val_loss_best_step", "text")}
    artifact = wandb.Artifact(f"model-{wandb_run.id}", type="model", metadata=figures)
    # Offline, a copy waits for `wandb sync`: the file itself may be gone by then.
    artifact.add_file(str(path), name=BEST, policy="mutable" if is_offline else "immutable")
    wandb_run.log_artifact(artifact, aliases=["best", "latest"])
