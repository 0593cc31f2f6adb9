"""Denoise a few lines with an encoder-decoder after each validation."""

from typing import Annotated

from annotated_types import Ge, Le
from lightning import Trainer
from torch import nn

from minigpt.data.datamodule import TextDataModule
from minigpt.data.denoising import DenoisingDataModule
from minigpt.data.tokenizer import LineTokenizer
from minigpt.inference.denoise_lines import denoise
from minigpt.model.encoder_decoder import EncoderDecoder
from minigpt.runs.run import Run
from minigpt.training.callbacks.samples import Samples
from minigpt.training.loggers import Sample
from minigpt.training.module import LanguageModel, get_datamodule


class DenoisedLines(Samples):
    """Writes the first lines of the validation part, corrupted and denoised, where `Samples` writes a sample.

    Args:
        run: where `samples.md` is.
        num_lines: how many lines.
    """

    def __init__(self, *, run: Run, num_lines: Annotated[int, Ge(1), Le(1000)] = 5) -> None:
        super().__init__(run=run)
        self.num_lines = num_lines

    def check(self, model: nn.Module, data: TextDataModule) -> None:
        """Raise ValueError for a run that does not train an encoder-decoder on lines."""
        if not isinstance(data, DenoisingDataModule) or not isinstance(model, EncoderDecoder):
            raise ValueError("callbacks=denoising needs model=encoder_decoder data=denoising")

    def sample(self, trainer: Trainer, pl_module: LanguageModel) -> Sample:
        """Each line as the model reads it and as it denoises it, by greedy decoding."""
        data, model = get_datamodule(trainer), pl_module.model
        assert isinstance(data, DenoisingDataModule) and isinstance(model, EncoderDecoder)  # see check
        tokenizer = data.corpus.tokenizer
        assert isinstance(tokenizer, LineTokenizer)
        corrupted = [tokenizer.decode(ids) for ids in data.val_pairs[: self.num_lines, 0].tolist()]
        was_training = model.training
        denoised = denoise(model.eval(), tokenizer, corrupted, num_beams=1, length_penalty=0.0)
        model.train(was_training)
        text = "\n".join(f"{line}\n    {best[0]}" for line, best in zip(corrupted, denoised, strict=True))
        return Sample("\n".join(corrupted), text)
