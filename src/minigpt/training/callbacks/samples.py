"""Let the model speak after each validation."""

import re
from pathlib import Path

import torch
from lightning import Callback, LightningModule
from rich.text import Text

from minigpt.inference.sampling import generate
from minigpt.training.loggers import log_text
from minigpt.training.terminal import console
from minigpt.training.trainer import Trainer

HEADING = re.compile(r"^## Step (\d+), validation loss", re.MULTILINE)


class Samples(Callback):
    """Writes a sample to the terminal, to `samples.md` and to the loggers that show text.

    Args:
        prompt: what the model continues; characters that it does not know are dropped.
        max_new_tokens: length of a sample.
        temperature: of the draw.
        seed: of the draw, the same at each validation.
    """

    def __init__(
        self, *, prompt: str = "\n", max_new_tokens: int = 160, temperature: float = 0.8, seed: int = 1
    ) -> None:
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.seed = seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and trainer.global_step:
            cut(trainer.run_directory / "samples.md", trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A sharded model computes on all devices at once, and sampling is not worth that.
        if not trainer.is_global_zero or pl_module.device_mesh is not None or not pl_module.objective.generates:
            return
        text = self.sample(trainer, pl_module)
        loss = trainer.callback_metrics["val/loss"].item()
        step = trainer.global_step
        console.print(f"[bold]step {step}[/]  val/loss [bold]{loss:.4f}[/]")
        console.print(Text(text.strip() or "(nothing but blanks)", style="dim"))
        with (trainer.run_directory / "samples.md").open("a", encoding="utf-8") as file:
            file.write(f"## Step {step}, validation loss {loss:.4f}\n\n```\n{text.strip()}\n```\n\n")
        for logger in trainer.loggers:
            log_text(logger, "samples", text, step)

    def sample(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """One sample, prompt included, with the training's own random state untouched."""
        tokenizer = trainer.datamodule.corpus.tokenizer
        prompt = tokenizer.known(self.prompt) or tokenizer.decode([0])
        device = pl_module.device
        tokens = torch.from_numpy(tokenizer.encode(prompt).astype("int64")).to(device)[None]
        generator = torch.Generator(device).manual_seed(self.seed)
        was_training = pl_module.model.training
        drawn = generate(
            pl_module.model,
            tokens,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            generator=generator,
        )
        text = prompt + tokenizer.decode(token.item() for token in drawn)
        pl_module.model.train(was_training)
        return text


def cut(path: Path, step: int) -> None:
    """Drop the samples after `step`: a resumed run will write them again."""
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        later = next((m.start() for m in HEADING.finditer(text) if int(m[1]) > step), len(text))
        path.write_text(text[:later], encoding="utf-8")
