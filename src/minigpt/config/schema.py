"""The options of each command that belong to no component; `--help` shows their descriptions.

The options of a component (a mapping with a `_target_`) are those of its constructor, see `minigpt.config.signature`.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import doc

from minigpt.bounds import (
    Device,
    Fraction,
    LengthPenalty,
    NonNegativeFloat,
    Port,
    PositiveFloat,
    PositiveInt,
    Precision,
    Probability,
    Seed,
)

Component = dict[str, Any]  # a mapping with a `_target_`
Components = dict[str, Component | None]  # named components, null for one that is left out

# The arguments that a command passes to its components itself, and the options that they come from.
PASSED = {
    "model": {"vocab_size": "data/tokenizer"},
    "data": {"pretrained": "init_from"},
    "optimizer": {"params": "the model"},
    "scheduler": {"step": "the run", "total_steps": "trainer.max_steps"},
    "trainer": {
        "precision": "precision",
        "callbacks": "the group callbacks",
        "logger": "the group logger",
        "run": "the run",
        # What `minigpt.training.trainer.Trainer` passes to Lightning's.
        "max_epochs": "trainer.max_steps",
        "val_check_interval": "trainer.val_every_n_steps",
        "check_val_every_n_epoch": "trainer.val_every_n_steps",
        "num_sanity_val_steps": "the Trainer of miniGPT",
        "use_distributed_sampler": "the Trainer of miniGPT",
        "enable_progress_bar": "callbacks.progress",
        "enable_model_summary": "the Trainer of miniGPT",
        "enable_checkpointing": "callbacks.checkpoints",
    },
    "callbacks": {"run": "the run"},
    "logger": {"run": "the run"},
}

# Options that the command line takes as they are typed, see `minigpt.config.text_options`. In a text every character
# stands for itself; in a path or a name `null` and `${...}` keep their meaning, and a leading `~` is the home folder.
TEXTS = frozenset({"prompt", "callbacks.samples.prompt", "data.drop_chars"})
PATHS = frozenset(
    {"name", "precision", "resume", "run", "runs", "eval_text", "prompt_file", "stop", "output", "host"}
    | {"init_from", "paths.data_dir", "paths.log_dir", "paths.run_dir", "paths.runs_dir", "data.path", "data.url"}
)
LISTS = frozenset({"stop"})  # those of them that may be a list in Hydra's grammar, [...]


@dataclass
class Paths:
    """Where things are read and written."""

    data_dir: Annotated[str, doc("texts and token caches")]
    log_dir: Annotated[str, doc("everything that runs write")]
    runs_dir: Annotated[str, doc("new runs, and where `latest` is looked for; debug=... has its own")]
    run_dir: Annotated[str | None, doc("this run's directory; a new one below runs_dir when null")]


@dataclass
class Train:
    """Train a model, or resume a run."""

    name: Annotated[str, doc("part of the run directory's name")]
    tags: Annotated[list[str], doc("words to find the run by, in summary.json and in W&B")]
    reference_loss: Annotated[float | None, doc("a published loss, shown beside the reached one")]
    seed: Annotated[Seed, doc("of the initial weights, the text's order and dropout")]
    precision: Annotated[Precision, doc("auto, or any of Lightning's")]
    compile: Annotated[bool, doc("compile the model and its loss with torch.compile")]
    resume: Annotated[str | None, doc("continue a run: its directory, latest or auto")]
    init_from: Annotated[str | None, doc("fine-tune a model: a folder, a run or a checkpoint")]
    ignore_fingerprint: Annotated[bool, doc("resume although the configuration has changed")]
    quiet: Annotated[bool, doc("print warnings, errors and the result alone")]
    model: Annotated[Component, doc("the network")]
    objective: Annotated[Component, doc("what is minimized, and how a split is scored")]
    data: Annotated[Component, doc("the text, its tokenizer, and the sequences of each batch")]
    optimizer: Annotated[Component, doc("the optimizer")]
    scheduler: Annotated[Component, doc("the learning-rate schedule")]
    trainer: Annotated[Component, doc("devices, steps, validation; others of Lightning by +")]
    paths: Annotated[Paths, doc("where to read and write")]
    callbacks: Annotated[Components, doc("Lightning callbacks")] = field(default_factory=dict)
    logger: Annotated[Components, doc("where metrics are written")] = field(default_factory=dict)


@dataclass
class Evaluate:
    """Score a trained model on its validation split, or on another text."""

    run: Annotated[str, doc("a run, checkpoint, exported model or latest; several: A,B")]
    average_last_n: Annotated[PositiveInt, doc("average the weights of the newest n checkpoints")]
    eval_text: Annotated[str | None, doc("another UTF-8 text to score; a split when null")]
    split: Annotated[Literal["val", "train"], doc("which split of the text of the training")]
    protocol: Annotated[
        Literal["exact", "random", "sliding", "dynamic"],
        doc("exact, random or sliding windows, or dynamic weights"),
    ]
    num_windows: Annotated[PositiveInt, doc("random: how many windows")]
    seed: Annotated[Seed, doc("random: of the windows")]
    stride: Annotated[PositiveInt | None, doc("sliding, dynamic: tokens from a window to the next")]
    dynamic_optimizer: Annotated[Literal["rms", "sgd"], doc("dynamic: gradients over their size in training, or plain")]
    dynamic_lr: Annotated[NonNegativeFloat, doc("dynamic: the learning rate")]
    dynamic_decay: Annotated[Probability, doc("dynamic: return to the trained weights after a window")]
    details: Annotated[bool, doc("print losses by position and token, and calibration")]
    format: Annotated[Literal["json", "table"] | None, doc("a table of several, else JSON, when null")]
    output: Annotated[str | None, doc("a JSON file to write, with all figures and details")]
    device: Annotated[Device, doc("where to compute")]
    precision: Annotated[Precision | None, doc("the run's own when null; float32 where bfloat16 is slow")]
    num_beams: Annotated[PositiveInt, doc("denoised lines: hypotheses that beam search keeps")]
    length_penalty: Annotated[LengthPenalty, doc("denoised lines: 0 favors short hypotheses")]
    num_decode_lines: Annotated[PositiveInt | None, doc("denoised lines: how many; all when null")]
    paths: Annotated[Paths, doc("where to read and write")]


@dataclass
class Generate:
    """Generate text with a trained model."""

    run: Annotated[str, doc("a run directory, checkpoint, exported model or latest")]
    average_last_n: Annotated[PositiveInt, doc("average the weights of the newest n checkpoints")]
    prompt: Annotated[str | None, doc("the text to continue, as typed; a line break when null")]
    prompt_file: Annotated[str | None, doc("a file with the prompt, - for standard input")]
    interactive: Annotated[bool, doc("read one prompt after another, typed or from a pipe")]
    max_new_tokens: Annotated[PositiveInt, doc("length of a sample in tokens")]
    temperature: Annotated[NonNegativeFloat, doc("divides the logits; 0 takes the most likely token")]
    top_k: Annotated[PositiveInt | None, doc("sample from the k likeliest tokens; all if there are fewer")]
    top_p: Annotated[Fraction | None, doc("sample from the fewest tokens with probability p")]
    min_p: Annotated[Probability | None, doc("sample from tokens p times as likely as the likeliest")]
    repetition_penalty: Annotated[PositiveFloat, doc("lowers the logits of tokens that occurred; 1: none")]
    seed: Annotated[Seed, doc("of the random draws")]
    num_samples: Annotated[PositiveInt, doc("samples drawn as a batch, or best hypotheses of a search")]
    num_beams: Annotated[PositiveInt | None, doc("beam search with so many hypotheses, not sampling")]
    length_penalty: Annotated[LengthPenalty, doc("beam search: 0 favors short hypotheses")]
    stop: Annotated[str | list[str] | None, doc("a text that ends a sample, or a list of them")]
    format: Annotated[Literal["text", "json"], doc("text, or JSON with log-probabilities, a line per sample")]
    device: Annotated[Device, doc("where to compute")]
    precision: Annotated[Precision, doc("auto for the fastest of the device")]
    paths: Annotated[Paths, doc("where to read and write")]


@dataclass
class Export:
    """Export a trained model as a folder for transformers, or as one safetensors file."""

    run: Annotated[str, doc("a run directory, a checkpoint, or latest")]
    average_last_n: Annotated[PositiveInt, doc("average the weights of the newest n checkpoints")]
    output: Annotated[str, doc("a folder for transformers, or a file NAME.safetensors")]
    paths: Annotated[Paths, doc("where to read and write")]


@dataclass
class Report:
    """Write a report of runs: one HTML page, and its figures as PNG and SVG."""

    runs: Annotated[str, doc("a run directory, a sweep's, latest, or a glob in quotes")]
    paths: Annotated[Paths, doc("where to read and write")]


@dataclass
class Playground:
    """Show the inside of a trained model on a local web page."""

    run: Annotated[str, doc("a run directory, checkpoint, exported model or latest")]
    host: Annotated[str, doc("the address to listen on; 127.0.0.1 is this machine alone")]
    port: Annotated[Port, doc("the port to listen on, or the next free one; 0 for any")]
    open_browser: Annotated[bool, doc("open the page, where there is a terminal and a display")]
    device: Annotated[Device, doc("where to compute")]
    paths: Annotated[Paths, doc("where to read and write")]


COMMANDS = {
    "train": Train,
    "evaluate": Evaluate,
    "generate": Generate,
    "export": Export,
    "report": Report,
    "playground": Playground,
}
