"""The Python interface.

    import minigpt

    directory = minigpt.train("model=nano", "trainer.max_steps=100")
    model = minigpt.load(directory)
    print(model.generate("ROMEO:"))

Nothing heavy is imported before it is used.
"""

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from minigpt.data.tokenizer import Tokenizer
    from minigpt.inference.load import LoadedModel


PACKAGED = Path(__file__).parent / "commands"  # where a wheel has the files of src/
FOLDER = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[1]


class TrainedModel:
    """A trained model, made by `load`.

    Attributes:
        loaded: the model with what a checkpoint tells of it.
    """

    def __init__(self, loaded: "LoadedModel") -> None:
        self.loaded = loaded

    @property
    def model(self) -> "nn.Module":
        """The network, which maps token ids [B, T] to logits [B, T, V]."""
        return self.loaded.model

    @property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer, with `encode` and `decode`."""
        return self.loaded.tokenizer

    @property
    def step(self) -> int:
        """Optimizer steps that the model was trained for."""
        return self.loaded.step

    def generate(self, prompt: str, **options: Any) -> str:
        """Return a prompt and its continuation.

        Args:
            prompt: at least one character.
            options: of `generate.py`, such as `max_new_tokens=100, temperature=0.7, top_k=20, seed=2`.

        Raises:
            ValueError: an option is wrong, or the prompt has characters that the model does not know.
        """
        return self.generate_batch(prompt, num_samples=1, **options)[0]

    def generate_batch(self, prompt: str, num_samples: int, **options: Any) -> list[str]:
        """Return several samples, drawn as one batch; see `generate`."""
        from minigpt.inference.text_generation import generate_samples

        values = {"prompt": prompt, "num_samples": num_samples, **options}
        return generate_samples(self.loaded, compose_with("generate", [f"run={self.loaded.path}"], values))

    def evaluate(self, **options: Any) -> dict[str, Any]:
        """Return the figures of `evaluate.py` by their names, such as `val_loss`.

        Args:
            options: of `evaluate.py`, such as `protocol="sliding", stride=16` or `eval_text="my.txt"`.

        Raises:
            ValueError: an option is wrong, or the text cannot be scored.
        """
        from minigpt.inference.evaluation import evaluate_run

        return evaluate_run(self.loaded, compose_with("evaluate", [f"run={self.loaded.path}"], options))


def compose(*overrides: str, command: str = "train") -> dict[str, Any]:
    """Return the checked configuration of a command line as plain data.

    Args:
        overrides: as on the command line, such as `"model=small"`.
        command: train, evaluate, generate, export or report.

    Raises:
        ValueError: an option is wrong; the message says what would be right.
    """
    return compose_with(command, overrides, {})


def compose_with(command: str, overrides: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked configuration of a command line, with further values that are no text."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import OmegaConf, open_dict, read_write
    from omegaconf.errors import OmegaConfBaseException

    from minigpt.cli import CONF, check, explain, quote_text_options

    instance = HydraConfig.instance()
    outer = instance.cfg  # of a command that this is called from
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose(command, quote_text_options(list(overrides), False), return_hydra_config=True)
        instance.set_config(composed)  # names are made of the choices of groups
        with read_write(composed), open_dict(composed):
            del composed["hydra"]
        for name, value in values.items():
            OmegaConf.update(composed, name, value)
        return check(composed, command)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error, [CONF])) from error
    finally:
        instance.cfg = outer


def build(node: Mapping[str, Any], **arguments: Any) -> Any:
    """Build a component of a configuration, such as `compose()["model"]`, with further arguments of its constructor."""
    from minigpt.config.build import build as build_node

    return build_node(node, **arguments)


def train(*overrides: str) -> Path:
    """Train in a process of its own, whose output is printed, and return the run directory.

    An interrupt (Ctrl-C, or the stop button of a notebook) ends the training after its step, with a checkpoint.

    Args:
        overrides: as on the command line, without a sweep; `resume=RUN_DIR` continues a run.

    Raises:
        ValueError: an option is wrong; nothing has begun.
        RuntimeError: the training failed; its output says why.
    """
    from minigpt.runs.directory import find_run, make_run_directory

    config = compose(*overrides)
    paths, options = config["paths"], list(overrides)
    if config["resume"] is not None:
        directory = find_run(config["resume"], Path(paths["runs_dir"]))
        options.append(f"resume={directory}")
    elif paths["run_dir"] is not None:
        directory = Path(paths["run_dir"])
    else:
        directory = make_run_directory(Path(paths["runs_dir"]), config["name"])
        options.append(f"paths.run_dir={directory}")
    code = run_command("train", options)
    if code:
        raise RuntimeError(f"the training ended with exit code {code}: see {directory}")
    return directory


def command_line(name: str, arguments: list[str]) -> list[str]:
    """The process of a command."""
    return [sys.executable, str(FOLDER / f"{name}.py"), *arguments]


def run_command(command: str, overrides: list[str]) -> int:
    """Run a command in a process of its own and print what it prints; return its exit code."""
    line = command_line(command, overrides)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for text in process.stdout:
                print(text, end="", flush=True)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            for text in process.stdout:
                print(text, end="", flush=True)
            raise
        return process.wait()


def load(run: str | Path = "latest", *, device: str = "auto", average_last_n: int = 1) -> TrainedModel:
    """Load a trained model.

    Args:
        run: a run directory, a checkpoint, an exported model, `latest`, or `wandb:ENTITY/PROJECT/RUN`.
        device: auto, gpu, cpu, cuda or mps.
        average_last_n: average the weights of the run's newest n checkpoints.

    Raises:
        ValueError: there is no such run or device.
    """
    from minigpt.inference.load import find_model

    runs_dir = compose(f"run={run}", command="generate")["paths"]["runs_dir"]
    return TrainedModel(find_model(str(run), runs_dir, device, average_last_n))
