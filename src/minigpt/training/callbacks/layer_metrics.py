"""Measure each layer: gradients, updates, activations and attention, which tell a training that becomes unstable."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn

from minigpt.bounds import PositiveInt
from minigpt.model.inspection import activation_statistics, parameters_by_layer
from minigpt.training.loggers import log_histogram
from minigpt.training.module import LanguageModel, full_tensor, optimizer_step_is_done

SEQUENCES, POSITIONS = 2, 256  # at most; the part of a batch that activations and attention are measured on


class LayerMetrics(Callback):
    """Writes figures of each layer to every logger.

    - `grad_norm/LAYER`: norm of the gradient before clipping.
    - `update_ratio/LAYER`: norm of a step's change of the weights over the norm of the weights.
    - `activation_rms/...`, `attention_entropy/...`, `max_logit/...`: see `minigpt.model.inspection`.

    All of them are read at once, so that a GPU synchronizes once. A measurement takes the memory of a copy of the
    weights.

    Args:
        every_n_steps: steps between two measurements.
        histograms: also log histograms of weights and gradients, `weights/LAYER` and `gradients/LAYER`, to the loggers
            that show them.
    """

    def __init__(self, *, every_n_steps: PositiveInt = 100, histograms: bool = False) -> None:
        self.every_n_steps = every_n_steps
        self.histograms = histograms
        self._weights: dict[str, list[tuple[Tensor, Tensor]]] = {}  # and a copy of each before the measured step
        self._norms: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if (trainer.global_step + 1) % self.every_n_steps:
            return
        assert isinstance(pl_module, LanguageModel)
        for layer, parameters in parameters_by_layer(pl_module.model).items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            if not gradients:
                continue
            self._norms[layer] = norm(gradients)
            self._weights[layer] = [(p.detach(), p.detach().clone()) for p in parameters]
            if self.histograms:
                self._gradients[layer] = flatten(gradients)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        if not self._weights or not optimizer_step_is_done(trainer, batch_idx):
            return
        assert isinstance(pl_module, LanguageModel)
        figures = {f"grad_norm/{layer}": value for layer, value in self._norms.items()}
        figures |= {f"update_ratio/{layer}": update_ratio(pairs) for layer, pairs in self._weights.items()}
        was_training = pl_module.model.training
        with trainer.precision_plugin.forward_context():
            figures |= activation_statistics(pl_module.model.eval(), part(batch[0]))
        pl_module.model.train(was_training)
        values = torch.stack([value.float() for value in figures.values()]).tolist()
        for logger in trainer.loggers:
            logger.log_metrics(dict(zip(figures, values, strict=True)), step=trainer.global_step)
        if self.histograms:
            self.log_histograms(trainer)
        self._weights, self._norms, self._gradients = {}, {}, {}

    def log_histograms(self, trainer: Trainer) -> None:
        """Hand the weights and gradients of each layer to the loggers that show histograms."""
        weights = {layer: flatten(new for new, _ in pairs) for layer, pairs in self._weights.items()}
        for name, layers in {"weights": weights, "gradients": self._gradients}.items():
            for layer, values in layers.items():
                for logger in trainer.loggers:
                    log_histogram(logger, f"{name}/{layer}", values.numpy(), trainer.global_step)


def update_ratio(weights: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The norm of the change over the norm of the weights, of pairs of new and old ones."""
    tiny = torch.finfo(torch.float32).tiny  # of weights that are all zero
    return norm([new - old for new, old in weights]) / norm([new for new, _ in weights]).clamp_min(tiny)


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """The norm of all elements of several tensors, over all devices that share them."""
    return full_tensor(nn.utils.get_total_norm(tensors))


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """All elements of several tensors as one on the CPU."""
    return torch.cat([full_tensor(tensor.detach()).flatten().float().cpu() for tensor in tensors])


def part(tokens: Tensor | tuple[Tensor, Tensor]) -> Any:
    """The first sequences and positions of the input of a model: token ids [B, T], or a pair of them."""
    if isinstance(tokens, Tensor):
        return tokens[:SEQUENCES, :POSITIONS]
    return tuple(part(side) for side in tokens)
