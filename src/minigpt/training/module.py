"""The LightningModule: what one step does, how it is validated, and what a checkpoint needs to be read alone.

Shapes: B rows, T time, V vocabulary.
"""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection, SumMetric

from minigpt.data.blocks import mix
from minigpt.inference.scoring import bits_per_character
from minigpt.model.gpt import Block
from minigpt.model.objectives import NextToken
from minigpt.training.optimizers import Muon, parameter_groups

Batch = tuple[Tensor, Tensor]
SUMS = ("loss", "correct", "count")  # what an objective's `score` returns


class LanguageModel(lightning.LightningModule):
    """Trains any model that maps token ids [B, T] to logits [B, T, V] towards an objective.

    Args:
        model: the network; it knows nothing of training.
        optimizer: constructor that takes `parameter_groups`.
        scheduler: function of (step, total_steps) from `minigpt.training.schedules`.
        objective: from `minigpt.model.objectives`.
        seed: names the dropout masks of each step.
        compile: compile the network with its loss, and on CUDA Muon's products, with torch.compile.
        tokens_per_character: what turns nats per token into bits per character.
        description: plain data that goes into each checkpoint, from which `minigpt.inference.load` rebuilds the model.
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
        description: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.objective = objective
        self.seed = seed
        self.tokens_per_character = tokens_per_character
        self.description = description or {}
        self.grad_norm: Tensor | None = None
        # Sums, since torchmetrics 1.9's MeanMetric forgets its weights when it does not look for NaN.
        self.val_sums = MetricCollection({name: SumMetric(nan_strategy="disable") for name in SUMS})
        self.compiled = compile
        self.loss, self.score = objective.loss, objective.score
        if compile:
            # Functions and not the model, which draws samples too: their shapes change with each token.
            self.loss, self.score = torch.compile(objective.loss), torch.compile(objective.score)
        optimizer(parameter_groups(model))  # an option that it refuses is better refused before a run begins
        scheduler(0, total_steps=1)

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        loss, reported = self.loss(self.model, *batch)
        return {"loss": loss, "reported": reported.detach()}

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Draw each micro-batch's dropout from (seed, step, micro-step, device), so that a resumed run repeats it."""
        micro_step = batch_index % self.trainer.accumulate_grad_batches
        key = (self.global_step * self.trainer.accumulate_grad_batches + micro_step) * self.trainer.world_size
        seed_generator(self.device, key + self.global_rank, self.seed)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        for name, value in zip(SUMS, self.score(self.model, *batch), strict=True):
            self.val_sums[name].update(value)

    def on_validation_epoch_end(self) -> None:
        sums = self.val_sums.compute()  # over all devices
        loss = sums["loss"] / sums["count"]
        metrics = {
            "val/loss": loss,
            "val/bpc": bits_per_character(loss, self.tokens_per_character),
            "val/perplexity": loss.exp(),
            "val/accuracy": sums["correct"] / sums["count"],
        }
        self.log_dict(metrics, logger=False)  # for early stopping; the Metrics callback writes all metrics
        self.val_sums.reset()

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.optimizer(parameter_groups(self.model))
        if isinstance(optimizer, Muon):
            optimizer.low_precision = self.trainer.precision.startswith("bf16")
            if self.compiled and self.device.type == "cuda" and self.device_mesh is None:
                optimizer.compile()
        self.peak_lrs = [group["lr"] for group in optimizer.param_groups]
        schedule = LambdaLR(optimizer, self.lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_factor(self, step: int) -> float:
        """What the schedule multiplies the learning rates by at a step."""
        return self.scheduler(step, total_steps=self.trainer.max_steps)

    def on_train_start(self) -> None:
        """Take learning rates from the configuration: a resumed optimizer brings those of the run as it was before."""
        schedule = self.lr_schedulers()
        schedule.base_lrs = self.peak_lrs
        for group, peak in zip(self.trainer.optimizers[0].param_groups, self.peak_lrs, strict=True):
            group["initial_lr"], group["lr"] = peak, peak * self.lr_factor(self.global_step)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of all gradients together, and keep what it was before.

        Lightning's own clipping refuses fused optimizers under mixed precision, though bfloat16 has no gradient
        scaling that could come in between.
        """
        if gradient_clip_val is None:
            self.grad_norm = nn.utils.get_total_norm(p.grad for p in self.model.parameters() if p.grad is not None)
        else:
            self.grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)
        # A scaler of 16-mixed expects infinite gradients now and then, and skips them itself.
        if self.trainer.scaler is not None:
            return
        if self.device.type == "cpu" or (self.global_step + 1) % self.trainer.log_every_n_steps == 0:
            # A look at the number makes a GPU wait, so there it is taken in the steps in which the metrics are.
            self.refuse_non_finite()

    def refuse_non_finite(self) -> None:
        """Stop before an update that would destroy the weights, or before they are saved.

        Raises:
            FloatingPointError: the newest gradient is infinite or not a number.
        """
        norm = 0.0 if self.grad_norm is None else whole(self.grad_norm).item()
        if not math.isfinite(norm):
            lr = self.trainer.optimizers[0].param_groups[0]["lr"]
            raise FloatingPointError(
                f"the gradient norm is {norm} at step {self.global_step + 1}, with a learning rate of {lr:.3g}; "
                f"the last checkpoint is sound. Try a lower optimizer.lr or trainer.gradient_clip_val=1"
            )

    def configure_model(self) -> None:
        """Shard parameters, gradients and optimizer state over the devices of a data-parallel mesh (trainer=fsdp)."""
        mesh = self.device_mesh
        if mesh is None or isinstance(self.model, FSDPModule):
            return
        for block in (m for m in self.model.modules() if isinstance(m, Block)):
            fully_shard(block, mesh=mesh["data_parallel"])
        fully_shard(self.model, mesh=mesh["data_parallel"])

    @property
    def checkpoint_bytes(self) -> int:
        """About what a checkpoint takes: the weights, for each up to two numbers of the optimizer, and the buffers."""
        weights, buffers = (sum(t.nbytes for t in ts) for ts in (self.model.parameters(), self.model.buffers()))
        return 3 * weights + buffers

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["minigpt"] = self.description


def describe(config: dict[str, Any], data: Any, precision: str) -> dict[str, Any]:
    """What a checkpoint says of itself besides the weights: plain data alone, see `minigpt.inference.load`.

    Its fingerprint is all that must stay the same for a resumed run to be the same run; how many devices compute it, in
    which precision and for how long may change.
    """
    tokenizer = data.corpus.tokenizer.state()
    digest = hashlib.sha256(json.dumps(tokenizer).encode()).hexdigest()
    text = {"path": data.path, "sha256": data.corpus.text_sha256, "val_fraction": data.val_fraction}
    rows = {k: v for k, v in config["data"].items() if k not in ("data_dir", "path", "url", "val_tokens_per_batch")}
    # Lightning counts micro-batches, so a resumed run must cut its steps as before.
    rows["accumulate_grad_batches"] = config["trainer"]["accumulate_grad_batches"]
    same = {part: config[part] for part in ("seed", "model", "objective", "optimizer", "scheduler")}
    same |= {"data": rows, "text": text["sha256"], "tokenizer": {"kind": tokenizer["kind"], "sha256": digest}}
    return {
        "fingerprint": same,
        "model": config["model"],
        "objective": config["objective"],
        "tokenizer": tokenizer,
        "precision": precision,
        "text": text | {"val_batch_size": data.val_batch_size, "block_size": data.block_size},
    }


def whole(value: Tensor) -> Tensor:
    """A sharded tensor as a whole one; a whole one as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def seed_generator(device: torch.device, key: int, seed: int) -> None:
    """Seed the device's random generator alone: `torch.manual_seed` visits every backend, which costs a step time."""
    value = int(mix(seed, np.array([key], dtype=np.uint64), 1)[0])
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)
    else:
        torch.default_generator.manual_seed(value)
