"""The LightningModule: the training step, validation, and the metadata that makes a checkpoint self-contained.

Shapes: B sequences, T time, V vocabulary.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection, SumMetric

from minigpt.data.datamodule import TextDataModule
from minigpt.inference.scoring import bits_per_character
from minigpt.model.gpt import Block
from minigpt.model.objectives import NextToken
from minigpt.training.optimizers import Muon, parameter_groups
from minigpt.training.seeding import seed_generator

Batch = tuple[Tensor, Tensor]
VAL_METRICS = ("val/loss", "val/bpc", "val/perplexity", "val/accuracy")
SUMS = ("loss", "correct", "count")  # what an objective's `score` returns


class LanguageModel(lightning.LightningModule):
    """Trains any model that maps token ids [B, T] to logits [B, T, V] towards an objective.

    Args:
        model: the network; it knows nothing of training.
        optimizer: constructor that takes `parameter_groups`.
        scheduler: function of (step, total_steps), such as those of `minigpt.training.schedules`.
        objective: the loss, from `minigpt.model.objectives`.
        seed: of the dropout masks of each step.
        compile: compile the network with its loss, and on CUDA Muon's products, with torch.compile.
        tokens_per_character: factor from nats per token to nats per character.
        metadata: plain data for each checkpoint, from which `minigpt.inference.load` rebuilds the model; see
            `checkpoint_metadata`.

    Attributes:
        grad_norm: the norm of all gradients of the newest step before clipping; None before the first step.

    Raises:
        ValueError: the optimizer or the schedule refuses an option.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., float],
        objective: NextToken,
        seed: int,
        compile: bool = False,
        tokens_per_character: float = 1.0,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.objective = objective
        self.seed = seed
        self.tokens_per_character = tokens_per_character
        self.metadata = metadata or {}
        self.grad_norm: Tensor | None = None
        # Sums, since torchmetrics 1.9's MeanMetric forgets its weights when it does not look for NaN.
        self.val_sums = MetricCollection({name: SumMetric(nan_strategy="disable") for name in SUMS})
        self.compiled = compile
        self.loss, self.score = objective.loss, objective.score
        if compile:
            # Functions and not the model, which generates samples too: their shapes change with each token.
            self.loss, self.score = torch.compile(objective.loss), torch.compile(objective.score)
        optimizer(parameter_groups(model))  # what it refuses is better refused before a run begins
        scheduler(0, total_steps=1)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        loss, reported = self.loss(self.model, *batch)
        return {"loss": loss, "reported": reported.detach()}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed each micro-batch's dropout by (seed, step, micro-step, rank), so that a resumed run repeats it."""
        micro_step = batch_idx % self.trainer.accumulate_grad_batches
        key = (self.global_step * self.trainer.accumulate_grad_batches + micro_step) * self.trainer.world_size
        seed_generator(self.device, key + self.global_rank, self.seed)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, value in zip(SUMS, self.score(self.model, *batch), strict=True):
            self.val_sums[name].update(value)

    def on_validation_epoch_end(self) -> None:
        sums = self.val_sums.compute()  # over all devices
        loss = sums["loss"] / sums["count"]
        bpc = bits_per_character(loss, self.tokens_per_character)
        metrics = zip(VAL_METRICS, (loss, bpc, loss.exp(), sums["correct"] / sums["count"]), strict=True)
        self.log_dict(dict(metrics), logger=False)  # for early stopping; the Metrics callback writes all metrics
        self.val_sums.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(parameter_groups(self.model))
        if isinstance(optimizer, Muon):
            optimizer.low_precision = self.trainer.precision.startswith("bf16")
            if self.compiled and self.device.type == "cuda" and self.device_mesh is None:
                optimizer.compile()
        self.peak_lrs = [group["lr"] for group in optimizer.param_groups]
        schedule = LambdaLR(optimizer, self.lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_factor(self, step: int) -> float:
        """The factor of the schedule for the learning rates of a step."""
        return self.scheduler(step, total_steps=self.trainer.max_steps)

    def on_train_start(self) -> None:
        """Take learning rates from the configuration: the state of a resumed optimizer has those of the run before."""
        schedule = self.lr_schedulers()
        assert isinstance(schedule, LambdaLR)
        schedule.base_lrs = self.peak_lrs
        for group, peak in zip(self.trainer.optimizers[0].param_groups, self.peak_lrs, strict=True):
            group["initial_lr"], group["lr"] = peak, peak * self.lr_factor(self.global_step)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of all gradients together, and keep its value before clipping.

        Lightning's own clipping refuses fused optimizers under mixed precision, though bfloat16 needs no gradient
        scaling.
        """
        if gradient_clip_val is None:
            self.grad_norm = nn.utils.get_total_norm(p.grad for p in self.model.parameters() if p.grad is not None)
        else:
            self.grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)
        # The scaler of 16-mixed expects infinite gradients now and then, and skips those steps itself.
        if self.trainer.scaler is not None:
            return
        if self.device.type == "cpu" or is_logged(self.trainer, self.global_step + 1):
            # Reading the number synchronizes a GPU, so it is read in the steps in which metrics are read anyway.
            self.refuse_non_finite()

    def refuse_non_finite(self) -> None:
        """Abort the run before an optimizer step that would destroy the weights, or before they are saved.

        Raises:
            FloatingPointError: the norm of the newest gradient is not finite.
        """
        norm = 0.0 if self.grad_norm is None else full_tensor(self.grad_norm).item()
        if not math.isfinite(norm):
            lr = self.trainer.optimizers[0].param_groups[0]["lr"]
            raise FloatingPointError(
                f"the gradient norm is {norm} at step {self.global_step + 1}, with a learning rate of {lr:.3g}; "
                f"the last checkpoint is intact. Try a lower optimizer.lr or trainer.gradient_clip_val=1"
            )

    def configure_model(self) -> None:
        """Shard parameters, gradients and optimizer state over the devices of a data-parallel mesh (trainer=fsdp)."""
        mesh = self.device_mesh
        if mesh is None:
            return
        from torch.distributed.fsdp import FSDPModule, fully_shard  # a second that other strategies save

        if isinstance(self.model, FSDPModule):
            return
        for block in (m for m in self.model.modules() if isinstance(m, Block)):
            fully_shard(block, mesh=mesh["data_parallel"])
        fully_shard(self.model, mesh=mesh["data_parallel"])

    def check_trainer(self, trainer: lightning.Trainer) -> None:
        """Raises ValueError for a precision that does not work with the optimizer."""
        optimizer = self.optimizer(parameter_groups(self.model))
        if trainer.precision == "16-mixed" and optimizer.defaults.get("fused"):
            # A fused optimizer unscales the gradients in its step, after they were clipped.
            raise ValueError("precision=16-mixed does not work with a fused optimizer: add optimizer.fused=false")

    @property
    def checkpoint_bytes(self) -> int:
        """Estimated size of a checkpoint: weights, up to two numbers of optimizer state for each, and buffers."""
        weights, buffers = (sum(t.nbytes for t in ts) for ts in (self.model.parameters(), self.model.buffers()))
        return 3 * weights + buffers

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["minigpt"] = self.metadata | {"precision": self.trainer.precision}


def checkpoint_metadata(config: Mapping[str, Any], data: TextDataModule) -> dict[str, Any]:
    """Plain data that makes a checkpoint self-contained: model, objective, tokenizer, text and fingerprint.

    A checkpoint has the precision beside them, which the Trainer knows.

    The fingerprint is all that must stay the same for a resumed run to be the same run; how many devices compute it, in
    which precision and for how long may change.
    """
    tokenizer = data.corpus.tokenizer.state()
    digest = hashlib.sha256(json.dumps(tokenizer).encode()).hexdigest()
    text = {"path": data.path, "sha256": data.corpus.text_sha256, "val_fraction": data.val_fraction}
    free = ("data_dir", "path", "url", "val_tokens_per_batch")
    sequences = {key: value for key, value in config["data"].items() if key not in free}
    # Lightning counts micro-batches, so a resumed run must split its steps as before.
    sequences["accumulate_grad_batches"] = config["trainer"]["accumulate_grad_batches"]
    fingerprint = {name: config[name] for name in ("seed", "model", "objective", "optimizer", "scheduler")}
    if config.get("init_from") is not None:
        fingerprint["init_from"] = config["init_from"]
    fingerprint |= {"data": sequences, "text": text["sha256"]}
    fingerprint |= {"tokenizer": {"kind": tokenizer["kind"], "sha256": digest}}
    return {
        "fingerprint": fingerprint,
        "model": config["model"],
        "objective": config["objective"],
        "tokenizer": tokenizer,
        "text": text
        | {"val_batch_size": data.val_batch_size, "block_size": data.block_size, "example_prompt": data.example_prompt},
    }


def get_datamodule(trainer: lightning.Trainer) -> TextDataModule:
    """The data of a run; Lightning keeps it without a type."""
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(data, TextDataModule)
    return data


def is_logged(trainer: lightning.Trainer, step: int) -> bool:
    """Whether the metrics of a step are read, for which a GPU has to synchronize."""
    return step % trainer.log_every_n_steps == 0  # pyright: ignore[reportAttributeAccessIssue]  # set by a connector


def optimizer_step_is_done(trainer: lightning.Trainer, batch_idx: int) -> bool:
    """Whether the micro-batch that has just ended was the last one of its optimizer step."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def full_tensor(value: Tensor) -> Tensor:
    """A sharded tensor gathered from all ranks; any other as it is."""
    if type(value) is Tensor:
        return value
    from torch.distributed.tensor import DTensor  # a second that unsharded training saves

    return value.full_tensor() if isinstance(value, DTensor) else value
