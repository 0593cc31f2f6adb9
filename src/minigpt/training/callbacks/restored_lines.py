"""Let an encoder-decoder restore a few lines after each validation."""

from lightning import LightningModule

from minigpt.inference.restoring import restore
from minigpt.training.callbacks.samples import Samples
from minigpt.training.trainer import Trainer


class RestoredLines(Samples):
    """Writes the first lines of the validation part, damaged and restored, where `Samples` writes a sample.

    Args:
        num_lines: how many.
    """

    def __init__(self, *, num_lines: int = 5) -> None:
        super().__init__()
        self.num_lines = num_lines

    def sample(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """Each line as it was read and as it was restored, the likeliest character at a time."""
        data, model = trainer.datamodule, pl_module.model
        tokenizer = data.corpus.tokenizer
        damaged = [tokenizer.decode(ids) for ids in data.val_pairs[: self.num_lines, 0].tolist()]
        was_training = model.training
        restored = restore(model.eval(), tokenizer, damaged, beam=1, length_penalty=0.0)
        model.train(was_training)
        return "\n".join(f"{line}\n    {best[0]}" for line, best in zip(damaged, restored, strict=True))
