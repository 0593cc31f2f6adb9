"""On a CUDA device: what is compiled computes the same, compiles once, and no step waits for the device."""

from functools import partial

import lightning
import numpy as np
import pytest
import torch

from minigpt.data.datamodule import SyntheticDataModule
from minigpt.data.loaders import TrainLoader
from minigpt.data.samplers import RandomSampler
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import RotaryPositions
from minigpt.model.gpt import GPT
from minigpt.model.layers import ReLU2MLP, RMSNorm
from minigpt.model.objectives import NextToken
from minigpt.runs.run import Run
from minigpt.training.callbacks.metrics import Metrics
from minigpt.training.callbacks.samples import Samples
from minigpt.training.module import LanguageModel
from minigpt.training.optimizers import Muon
from minigpt.training.schedules import constant
from minigpt.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("default"),  # the compiler has remarks on each kind of device
]
STEPS = 30


class Watch(lightning.Callback):
    """Notes validation losses and how much is compiled; in the `silent` steps waiting for the device is an error."""

    def __init__(self, silent):
        self.silent = silent
        self.losses, self.graphs = [], []
        self.silenced = 0

    def on_train_batch_start(self, *args):
        self.silenced += torch.cuda.get_sync_debug_mode() == 2

    def on_validation_end(self, trainer, *args):
        self.losses.append(trainer.callback_metrics["val/loss"].item())

    def on_train_batch_end(self, trainer, *args):
        self.graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        # From here to the end of the next step: its batch is on its way to the device before it begins.
        torch.cuda.set_sync_debug_mode("error" if trainer.global_step + 1 in self.silent else "default")


def make_model(vocab_size, **options):
    torch.manual_seed(1)
    parts = {"attention": partial(CausalSelfAttention, qk_norm=True), "mlp": ReLU2MLP, "norm": RMSNorm}
    sizes = {"block_size": 64, "num_layers": 2, "num_heads": 2, "dim": 128}
    return GPT(vocab_size=vocab_size, positions=RotaryPositions, **sizes, **parts, **options)


def train(folder, *, compile):
    """What is seen of a run of a few steps."""
    silent = range(22, 29)  # between two looks at the metrics
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    options = {"data_dir": str(folder), "block_size": 64, "batch_size": 16, "val_tokens_per_batch": 512}
    data = SyntheticDataModule(num_chars=20_000, generator_seed=1, seed=1, **options)
    muon = partial(Muon, lr=0.02, adamw_lr=0.01, momentum=0.95, weight_decay=0.0)
    model = make_model(data.corpus.tokenizer.vocab_size, zero_init=True)
    schedule = partial(constant, warmup_steps=0)
    module = LanguageModel(model, optimizer=muon, scheduler=schedule, objective=NextToken(), seed=1, compile=compile)
    watch = Watch(silent)
    options = {"devices": 1, "strategy": "auto", "accumulate_grad_batches": 1, "timeout_s": 60}
    options |= {"max_steps": STEPS, "val_every_n_steps": 10, "log_every_n_steps": 10, "precision": "bf16-mixed"}
    trainer = Trainer(
        accelerator="cuda", callbacks=[Metrics(), Samples(run=Run(folder, {}), max_new_tokens=8), watch], **options
    )
    try:
        trainer.fit(module, datamodule=data)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return watch


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return train(tmp_path_factory.mktemp("compiled"), compile=True)


def test_compiled_logits_are_the_plain_ones():
    model = make_model(65).to("cuda")
    tokens = torch.randint(65, (4, 64), device="cuda")
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        plain, fast = (f(tokens).float() for f in (model, torch.compile(model)))
    assert plain.std() > 0.1
    assert (fast - plain).norm() < 0.02 * plain.norm()  # bfloat16 has eight bits


def test_a_compiled_run_reaches_the_loss_of_a_plain_one_without_waiting(compiled, tmp_path):
    plain = train(tmp_path, compile=False)
    assert plain.silenced == compiled.silenced == 7
    assert plain.losses[0] < 3, "it learns"
    assert compiled.losses[0] == pytest.approx(plain.losses[0], abs=0.02)
    assert compiled.losses[-1] == pytest.approx(plain.losses[-1], abs=0.1), "rounding grows with the steps"


def test_nothing_is_compiled_after_the_first_validation(compiled):
    graphs = compiled.graphs
    assert len(graphs) == STEPS
    assert graphs[0] == 5, "the step's, and one for each of Muon's four shapes"
    assert graphs[10] == graphs[-1] == 6, "and the validation's"


def test_batches_are_pinned_in_one_piece():
    sampler = RandomSampler(num_tokens=1000, block_size=16, seed=1)
    how = {"batch_size": 4, "micro_batches": 1, "rank": 0, "world_size": 1, "first_step": 0, "last_step": 1}
    batch = next(iter(TrainLoader(np.arange(1000, dtype=np.uint16), sampler, pin=True, **how)))
    assert all(part.is_pinned() and part.is_contiguous() for part in batch)
