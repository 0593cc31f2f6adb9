"""The baseline: a training script written with Lightning alone, following its documentation.

    python benchmarks/faults/baseline.py folder=DIR resume=last max_steps=60

The model is miniGPT's own, so that only the training around it differs.
"""

import json
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import LearnedPositions
from minigpt.model.gpt import GPT
from minigpt.model.layers import MLP, LayerNorm

DEFAULTS = {"folder": ".", "resume": "", "max_steps": 60, "lr": 1e-3, "devices": 1, "timeout_s": 600.0, "every": 2}
DEFAULTS |= {"wandb": 0, "dim": 32}


class Module(lightning.LightningModule):
    """Next-character prediction."""

    def __init__(self, lr: float, dim: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = GPT(
            vocab_size=64, block_size=32, num_layers=2, num_heads=2, dim=dim, dropout=0.1,
            attention=CausalSelfAttention, mlp=MLP, norm=partial(LayerNorm, bias=True), positions=LearnedPositions,
        )  # fmt: skip

    def training_step(self, batch, index):
        tokens = batch[0]
        loss = F.cross_entropy(self.model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)


def main(options: dict) -> None:
    """Train, or resume from a checkpoint."""
    lightning.seed_everything(1, verbose=False)
    folder = Path(options["folder"])
    text = torch.randint(64, (2000, 33), generator=torch.Generator().manual_seed(1))
    checkpoints = ModelCheckpoint(
        folder / "checkpoints", filename="{step}", every_n_train_steps=options["every"], save_last=True, save_top_k=-1
    )
    loggers = [CSVLogger(folder, name="", version="csv")]
    if options["wandb"]:
        from lightning.pytorch.loggers import WandbLogger

        loggers.append(WandbLogger(project="baseline", save_dir=folder))
    strategy = DDPStrategy(timeout=timedelta(seconds=options["timeout_s"])) if options["devices"] > 1 else "auto"
    trainer = lightning.Trainer(
        accelerator="cpu", devices=options["devices"], strategy=strategy, max_steps=options["max_steps"],
        callbacks=[checkpoints], logger=loggers, log_every_n_steps=1, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    loader = DataLoader(TensorDataset(text), batch_size=8, shuffle=True)
    trainer.fit(Module(options["lr"], options["dim"]), loader, ckpt_path=options["resume"] or None)
    (folder / "done.json").write_text(json.dumps({"steps": trainer.global_step}))


if __name__ == "__main__":
    typed = dict(option.partition("=")[::2] for option in sys.argv[1:])
    main({name: type(default)(typed.get(name, default)) for name, default in DEFAULTS.items()})
