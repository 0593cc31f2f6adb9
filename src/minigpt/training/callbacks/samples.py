"""Sample from the model after each validation."""

from typing import Annotated

import torch
from annotated_types import Ge, Le
from lightning import Callback, LightningModule, Trainer
from rich.text import Text
from torch import nn

from minigpt.bounds import NonNegativeFloat, Seed
from minigpt.data.datamodule import TextDataModule
from minigpt.inference.sampling import generate_with_logits
from minigpt.runs.directory import SAMPLES
from minigpt.runs.run import Run
from minigpt.runs.run_files import append_sample
from minigpt.training.loggers import Sample, log_sample
from minigpt.training.module import LanguageModel, get_datamodule
from minigpt.training.terminal import console


class Samples(Callback):
    """Writes a sample to the terminal, to `samples.md` and to the loggers that show text.

    Args:
        run: where `samples.md` is.
        prompt: the text that the model continues; characters that it does not know are dropped.
        max_new_tokens: length of a sample, in tokens.
        temperature: divides the logits.
        seed: of the random draws, the same at each validation.
    """

    def __init__(
        self,
        *,
        run: Run,
        prompt: str = "\n",
        max_new_tokens: Annotated[int, Ge(1), Le(10_000)] = 160,
        temperature: NonNegativeFloat = 0.8,
        seed: Seed = 1,
    ) -> None:
        self.run = run
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.seed = seed

    def check(self, model: nn.Module, data: TextDataModule) -> None:
        """Raise ValueError for a run that has no text to continue."""
        if data.seq2seq:
            raise ValueError("callbacks.samples continues a text, and these data are lines: add callbacks=denoising")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LanguageModel)
        # A sharded model computes on all devices at once, and sampling is not worth that.
        if not trainer.is_global_zero or pl_module.device_mesh is not None or not pl_module.objective.can_generate:
            return
        assert self.run.directory is not None
        sample = self.sample(trainer, pl_module)
        text = sample.text.strip()
        loss = trainer.callback_metrics["val/loss"].item()
        step = trainer.global_step
        console.print(f"[bold]step {step}[/]  val/loss [bold]{loss:.4f}[/]")
        console.print(Text(text or "(nothing but white space)", style="dim"))
        append_sample(self.run.directory / SAMPLES, step, loss, text)
        for logger in trainer.loggers:
            log_sample(logger, sample, step)

    def sample(self, trainer: Trainer, pl_module: LanguageModel) -> Sample:
        """One sample; the random state of the training stays as it is."""
        tokenizer = get_datamodule(trainer).corpus.tokenizer
        prompt = tokenizer.known(self.prompt) or tokenizer.decode([0])
        device = pl_module.device
        tokens = torch.from_numpy(tokenizer.encode(prompt).astype("int64")).to(device)[None]
        generator = torch.Generator(device).manual_seed(self.seed)
        was_training = pl_module.model.training
        drawn = generate_with_logits(
            pl_module.model,
            tokens,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            generator=generator,
        )
        ids, log_probabilities = [], []
        for token, logits in drawn:
            ids.append(int(token.item()))
            log_probabilities.append(logits.log_softmax(dim=-1)[0, token])
        pl_module.model.train(was_training)
        return Sample(prompt, prompt + tokenizer.decode(ids), torch.cat(log_probabilities).mean().item())
