"""Draw the attention of the model after each validation."""

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from minigpt.bounds import PositiveInt
from minigpt.model.gpt import GPT
from minigpt.training.loggers import log_image, shows_media
from minigpt.training.module import LanguageModel, get_datamodule

INK = np.array([21, 62, 117])  # the colour of a head's largest weight; 0 is white
ZOOM = 3  # pixels per weight


class AttentionImages(Callback):
    """Writes one image, `attention`, to the loggers that show images: a row for each layer, a map for each head.

    Rows of a map are queries, columns keys.

    Args:
        num_tokens: how many tokens, from the beginning of the validation split.
    """

    def __init__(self, *, num_tokens: PositiveInt = 32) -> None:
        self.num_tokens = num_tokens

    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LanguageModel)
        model, data = pl_module.model, get_datamodule(trainer)
        # A sharded model computes on all devices at once, and an image is not worth that.
        if not trainer.is_global_zero or pl_module.device_mesh is not None or data.seq2seq:
            return
        loggers = [logger for logger in trainer.loggers if shows_media(logger)]
        if not loggers or not isinstance(model, GPT):
            return
        length = min(self.num_tokens, model.block_size)
        tokens = torch.from_numpy(data.corpus.val[:length].astype(np.int64)).to(pl_module.device)[None]
        was_training = model.training
        with trainer.precision_plugin.forward_context():
            maps = [layer[0].float().cpu() for layer in model.eval().attention_maps(tokens)]
        model.train(was_training)
        if maps:
            for logger in loggers:
                log_image(logger, "attention", draw(maps), trainer.global_step)


def draw(maps: list[Tensor]) -> np.ndarray:
    """Attention weights [H, T, T] of each layer -> image [height, width, 3]; each head is relative to its maximum."""
    relative = torch.stack([layer / layer.amax(dim=(1, 2), keepdim=True) for layer in maps])  # [layers, H, T, T]
    framed = torch.nn.functional.pad(relative, (1, 1, 1, 1), value=0.5)
    layers, heads, height, width = framed.shape
    grid = framed.permute(0, 2, 1, 3).reshape(layers * height, heads * width).numpy()
    grid = grid.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)[..., None]
    return (255 - grid * (255 - INK)).astype(np.uint8)
