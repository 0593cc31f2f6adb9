"""The fields of each door's configuration that do not belong to a part.

A part (whatever has a `_target_`) is described by the signature of what it builds; see `minigpt.config.signature`.
The annotations are what `minigpt.config.checks` holds the values against.
"""

from __future__ import annotations  # keeps the annotations as text, the form that signatures are read in

from dataclasses import dataclass
from typing import Any


@dataclass
class Paths:
    """Where things lie."""

    data_dir: str  # texts and token caches
    log_dir: str  # all that runs write
    run_dir: str | None  # this run's directory; made anew under log_dir/runs when null


@dataclass
class Train:
    """src/train.py"""

    name: str  # part of the run directory's name
    published: float | None  # the loss that others have published for this, shown beside the reached one
    seed: int  # of the weights, of the order of the text, of dropout
    precision: str  # auto, or any of Lightning's
    compile: bool  # torch.compile the model
    resume: str | None  # a run directory, latest, or auto: go on where that run stopped
    resume_anyway: bool  # even when its fingerprint is another
    model: dict[str, Any]
    objective: dict[str, Any]
    data: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    trainer: dict[str, Any]
    callbacks: dict[str, Any]
    logger: dict[str, Any]
    paths: Paths


@dataclass
class Evaluate:
    """src/evaluate.py"""

    run: str  # a run directory, a checkpoint or latest
    average: int  # take the mean of the weights of its newest so many checkpoints
    text: str | None  # another UTF-8 text to score, whole; the run's own validation split when null
    device: str  # auto, cpu, cuda or mps
    precision: str | None  # the run's own when null
    beam: int  # restored lines: how many hypotheses are kept
    length_penalty: float  # restored lines: 0 favours short hypotheses
    decode_lines: int | None  # restored lines: how many, from the first on; all when null
    paths: Paths


@dataclass
class Generate:
    """src/generate.py"""

    run: str  # a run directory, a checkpoint or latest
    average: int  # take the mean of the weights of its newest so many checkpoints
    prompt: str  # what the model continues
    max_new_tokens: int
    temperature: float  # 0 takes the likeliest token
    top_k: int | None  # draw from the k likeliest tokens alone
    top_p: float | None  # draw from the fewest tokens whose probabilities reach p
    seed: int
    num_samples: int  # drawn side by side, or the best of the beam
    beam: int | None  # search for the likeliest text with so many hypotheses, instead of drawing one
    length_penalty: float  # 0 favours short hypotheses
    end: str | None  # the character that ends a hypothesis
    device: str  # auto, cpu, cuda or mps
    precision: str  # auto for what the device computes fast
    paths: Paths


@dataclass
class Export:
    """src/export.py"""

    run: str  # a run directory, a checkpoint or latest
    average: int  # take the mean of the weights of its newest so many checkpoints
    to: str  # the file to write, *.safetensors
    paths: Paths


DOORS = {"train": Train, "evaluate": Evaluate, "generate": Generate, "export": Export}
