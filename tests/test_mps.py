"""Apple's GPUs (MPS): they have no float64 and no complex numbers, and torch has no kernel for some operations there.

No such GPU is needed: every operation of a training step and of generation is recorded, and looked up in the table that
torch itself is generated from.
"""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from benchmarks.report import compose_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minigpt.config.build import build
from minigpt.devices import resolve_precision
from minigpt.inference.sampling import generate
from minigpt.training.optimizers import Muon, parameter_groups

TABLE = Path(torch.__file__).parents[1] / "torchgen/packaged/ATen/native/native_functions.yaml"
ON_ANY_DEVICE = {"MPS", "CompositeImplicitAutograd", "CompositeExplicitAutograd"}
# A CPU's recurrent layers are oneDNN's; MPS has kernels of its own for an LSTM, and plain operations for the others.
CPU_ALONE = {"mkldnn_rnn_layer", "mkldnn_rnn_layer_backward"}
SIZES = {"num_layers": 2, "num_heads": 2, "dim": 32, "block_size": 16}
CONFIGURATIONS = [
    "precision=auto",  # the default: Muon, QK-norm, rotary positions, convolutions
    "model/preset=gpt2 optimizer=adamw model.dropout=0.1",
    "model/preset=transformer optimizer=adam objective.label_smoothing=0.1",
    "model/positions=alibi model/attention=sliding_window optimizer=sgd",
    "model/attention=softcap",
    "model/attention=value_residual",
    "model/embedding=match",
    "model/embedding=ngram",
    "model/mlp=moe",
    "model=multi_token objective=multi_token",
    "model/attention=bidirectional objective=masked",
    "model=encoder_decoder data=denoising",
    "model=rnn",
    "model=bag_of_words",
    "model=ngram",
]


class Recorder(TorchDispatchMode):
    """Records the operations that run, and those that read or return numbers that MPS lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[str] = set()
        self.unsupported: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations.add(func.name())
        dtypes = {t.dtype for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)}
        if any(dtype == torch.float64 or dtype.is_complex for dtype in dtypes):
            self.unsupported.add(func.name())
        return out


@cache
def kernels() -> dict[str, tuple[str | None, set[str]]]:
    """For each operation of torch: the one that it delegates to, and the names of its kernels."""
    table = {}
    for entry in re.split(r"^- func: ", TABLE.read_text(), flags=re.MULTILINE)[1:]:
        delegate = re.search(r"^  structured_delegate: (\S+)", entry, re.MULTILINE)
        dispatch = re.search(r"^  dispatch:\n((?:    .*\n)+)", entry, re.MULTILINE)
        keys = re.findall(r"^ +([\w, ]+):", dispatch[1], re.MULTILINE) if dispatch else []
        table[entry.partition("(")[0]] = delegate and delegate[1], {k.strip() for key in keys for k in key.split(",")}
    return table


def runs_on_mps(operation: str) -> bool:
    """Whether torch has a kernel for an operation on MPS, or one that is made of others."""
    delegate, names = kernels()[operation]
    return runs_on_mps(delegate) if delegate else not names or bool(names & ON_ANY_DEVICE)


def test_what_mps_lacks_is_noticed():
    assert runs_on_mps("add.Tensor") and runs_on_mps("_fused_adamw_") and not runs_on_mps("_linalg_eigh")
    with Recorder() as seen:
        torch.ones(2).double()
        torch.fft.rfft(torch.ones(2))
    assert {"aten::_to_copy", "aten::_fft_r2c"} == seen.unsupported


@pytest.mark.parametrize("options", CONFIGURATIONS)
def test_training_and_generation_use_what_mps_has(options):
    config = compose_config(*options.split())
    config["model"] |= {name: size for name, size in SIZES.items() if name in config["model"]}
    objective, model = build(config["objective"]), build(config["model"])(vocab_size=65)
    optimizer = build(config["optimizer"])(parameter_groups(model))
    if isinstance(optimizer, Muon):
        optimizer.low_precision = True
    sequences = torch.randint(60, (2, 17))
    tokens, targets = sequences[:, :-1], sequences[:, 1:]
    is_pair = "encoder_decoder" in options
    inputs = (tokens, tokens) if is_pair else tokens
    with Recorder() as seen:
        for _ in range(2):
            loss, _ = objective.loss(model, inputs, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        objective.score(model, inputs, targets)
        if objective.can_generate and not is_pair:
            list(generate(model, tokens[:1, :4], max_new_tokens=3, top_k=9, top_p=0.9))
    assert seen.unsupported == set()
    operations = {name.removeprefix("aten::") for name in seen.operations if name.startswith("aten::")}
    assert len(operations) > 40
    assert {name for name in operations - CPU_ALONE if not runs_on_mps(name)} == set()


def test_float64_is_refused_on_mps():
    with pytest.raises(ValueError, match="precision=64-true"):
        resolve_precision("64-true", "mps")
    assert resolve_precision("auto", "mps") == "32-true"
