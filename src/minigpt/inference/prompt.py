"""The prompt of generate.py: typed, from a file, or from standard input."""

import contextlib
import sys

import torch
from torch import Tensor

from minigpt.inference.load import LoadedModel

DEFAULT = "\n"
STANDARD_INPUT = "-"
MAX_BYTES = 1 << 24


def read_prompt(prompt: str | None, prompt_file: str | None) -> str:
    """Return the text that a model continues; of a file without its last line break, as `$(cat FILE)` has it.

    Args:
        prompt: the text itself.
        prompt_file: a UTF-8 file with the text, `-` for standard input.

    Raises:
        ValueError: both are given, or the file cannot be read, is not UTF-8 or larger than 16 MiB.
    """
    if prompt_file is None:
        return DEFAULT if prompt is None else prompt
    if prompt is not None:
        raise ValueError("prompt and prompt_file are both given: leave one of them out")
    name = "standard input" if prompt_file == STANDARD_INPUT else prompt_file
    is_file = prompt_file != STANDARD_INPUT
    try:
        with open(prompt_file, "rb") if is_file else contextlib.nullcontext(sys.stdin.buffer) as file:  # noqa: PTH123
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"prompt_file={prompt_file} cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"{name} is larger than {MAX_BYTES >> 20} MiB: a model reads the end of a prompt alone")
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text (byte {error.start}: {error.reason}): convert it first") from error
    return text.removesuffix("\n")


def encode_prompt(loaded: LoadedModel, prompt: str) -> Tensor:
    """Return the token ids [T] of a prompt, on the model's device.

    Raises:
        ValueError: the prompt has characters outside the vocabulary, or is not UTF-8.
    """
    device = next(loaded.model.parameters()).device
    try:
        ids = loaded.tokenizer.encode(prompt)
    except UnicodeEncodeError as error:  # Python stands in for such bytes of a command line or a terminal
        raise ValueError(f"the prompt is not UTF-8 text (character {error.start})") from error
    except ValueError as error:
        hint = "; a prompt is taken as it is typed, and a line break is $'\\n'" if "\\" in prompt else ""
        raise ValueError(f"{error}{hint}") from error
    return torch.from_numpy(ids.astype("int64")).to(device)
