"""Denoise a few lines with an encoder-decoder after each validation."""

from lightning import Trainer

from minigpt.bounds import PositiveInt
from minigpt.data.denoising import DenoisingDataModule
from minigpt.data.tokenizer import LineTokenizer
from minigpt.inference.denoise_lines import denoise
from minigpt.model.encoder_decoder import EncoderDecoder
from minigpt.runs.run import Run
from minigpt.training.callbacks.samples import Samples
from minigpt.training.module import LanguageModel, get_datamodule


class DenoisedLines(Samples):
    """Writes the first lines of the validation part, corrupted and denoised, where `Samples` writes a sample.

    Args:
        run: where `samples.md` is.
        num_lines: how many lines.
    """

    def __init__(self, *, run: Run, num_lines: PositiveInt = 5) -> None:
        super().__init__(run=run)
        self.num_lines = num_lines

    def sample(self, trainer: Trainer, pl_module: LanguageModel) -> str:
        """Each line as the model reads it and as it denoises it, by greedy decoding.

        Raises:
            ValueError: the run does not train an encoder-decoder on lines.
        """
        data, model = get_datamodule(trainer), pl_module.model
        if not isinstance(data, DenoisingDataModule) or not isinstance(model, EncoderDecoder):
            raise ValueError("callbacks=denoising needs model=encoder_decoder data=denoising")
        tokenizer = data.corpus.tokenizer
        assert isinstance(tokenizer, LineTokenizer)
        corrupted = [tokenizer.decode(ids) for ids in data.val_pairs[: self.num_lines, 0].tolist()]
        was_training = model.training
        denoised = denoise(model.eval(), tokenizer, corrupted, num_beams=1, length_penalty=0.0)
        model.train(was_training)
        return "\n".join(f"{line}\n    {best[0]}" for line, best in zip(corrupted, denoised, strict=True))
