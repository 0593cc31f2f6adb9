"""Imports that wait until they are needed: each test in a process of its own, which has imported nothing yet."""

import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
BEGIN = "import sys; from minigpt.deferred_imports import defer_imports; defer_imports(); import torch, lightning\n"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", BEGIN + code], cwd=SRC, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_optimizer_and_lightning_need_no_compiler():
    """And once something compiles, a function that was kept out of compiled code before stays out."""
    print(
        run("""
layer = torch.nn.Linear(2, 2)
optimizer = torch.optim.AdamW(layer.parameters())
layer(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.zero_grad()
from torch._dynamo import OptimizedModule
assert not isinstance(layer, OptimizedModule)
assert "torch._dynamo.eval_frame" not in sys.modules and "sympy" not in sys.modules

calls = []
def record(x):
    calls.append(torch.compiler.is_compiling())
    return x
record = torch.compiler.disable(record)
compiled = torch.compile(lambda x: record(x + 1) * 2, backend="eager")
assert compiled(torch.ones(2)).tolist() == [4, 4] and calls == [False]
assert "torch._dynamo.eval_frame" in sys.modules
assert isinstance(torch.compile(layer, backend="eager"), OptimizedModule)
assert isinstance(torch.compile(layer, backend="eager"), torch._dynamo.OptimizedModule)
""")
    )


def test_a_submodule_is_imported_once_and_after_its_package():
    run("""
from torch._dynamo.utils import counters
import torch._dynamo
assert torch._dynamo.utils.counters is counters and sys.modules["torch._dynamo.utils"] is torch._dynamo.utils
assert torch._dynamo.utils.__spec__.loader is torch._dynamo.utils.__loader__
""")


def test_transformers_works_when_it_is_used():
    pytest.importorskip("transformers")
    run("""
assert "transformers.utils" not in sys.modules
import torchmetrics.functional.text
from transformers import AutoModel, GPT2Config, GPT2Model
assert isinstance(AutoModel.from_config(GPT2Config(n_layer=1, n_head=1, n_embd=4, vocab_size=5)), GPT2Model)
""")
