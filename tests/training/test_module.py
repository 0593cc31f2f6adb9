"""The LightningModule in a real, tiny Trainer."""

import math
from functools import partial
from itertools import product
from types import SimpleNamespace

import lightning
import pytest
import torch
import torch.nn.functional as F
from torchmetrics.text import Perplexity

from minigpt.data.datamodule import SyntheticDataModule
from minigpt.data.tokenizer import BPETokenizer, CharTokenizer
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import LearnedPositions, RotaryPositions
from minigpt.model.gpt import GPT
from minigpt.model.layers import MLP, LayerNorm, ReLU2MLP, RMSNorm
from minigpt.model.objectives import NextToken
from minigpt.runs.run import Run
from minigpt.training.callbacks import metrics
from minigpt.training.callbacks.metrics import Metrics
from minigpt.training.callbacks.samples import Samples
from minigpt.training.module import LanguageModel
from minigpt.training.optimizers import Muon
from minigpt.training.schedules import constant
from minigpt.training.trainer import Trainer

SIZES = {"block_size": 16, "num_layers": 2, "num_heads": 2, "dim": 32}
MODERN = {"attention": partial(CausalSelfAttention, qk_norm=True), "mlp": ReLU2MLP, "norm": RMSNorm}
MODERN |= {"positions": RotaryPositions, "zero_init": True}
CLASSIC = {"attention": CausalSelfAttention, "mlp": MLP, "norm": LayerNorm, "positions": LearnedPositions}
CLASSIC |= {"tie_head": True}
SCHEDULE = partial(constant, warmup_steps=0)
MUON = partial(Muon, lr=0.02, adamw_lr=0.01, momentum=0.95, weight_decay=0.0)
ADAMW = partial(torch.optim.AdamW, lr=1e-3, fused=True)


class Record(lightning.pytorch.loggers.Logger):
    """Keeps what is logged."""

    name, version = "record", "0"

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.rows.append({"step": step, **metrics})

    def column(self, name):
        return [row[name] for row in self.rows if name in row]


def train(
    tmp_path,
    parts=MODERN,
    optimizer=MUON,
    batch_size=4,
    dropout=0.0,
    precision="32-true",
    max_steps=3,
    tokenizer=CharTokenizer,
    compile=False,
    objective=None,
    scheduler=SCHEDULE,
    val_tokens_per_batch=16_384,
    **options,
):
    torch.manual_seed(1)
    size = {"num_chars": 4000, "block_size": 16, "batch_size": batch_size}
    size |= {"val_tokens_per_batch": val_tokens_per_batch}
    data = SyntheticDataModule(generator_seed=1, data_dir=str(tmp_path), seed=1, tokenizer=tokenizer, **size)
    model = GPT(vocab_size=data.corpus.tokenizer.vocab_size, dropout=dropout, **SIZES, **parts)
    how = {"objective": objective or NextToken(), "scheduler": scheduler, "compile": compile}
    how |= {"tokens_per_character": data.corpus.tokens_per_character}
    module = LanguageModel(model, optimizer=optimizer, seed=1, **how)
    record = Record()
    options = {
        "devices": 1,
        "strategy": "auto",
        "accumulate_grad_batches": 1,
        "val_every_n_steps": max_steps,
        "log_every_n_steps": 1,
        "timeout_s": 60,
        "callbacks": [Metrics()],
    } | options
    trainer = Trainer(accelerator="cpu", max_steps=max_steps, precision=precision, logger=[record], **options)
    trainer.fit(module, datamodule=data)
    return module, data, record


GOLDEN = {
    "modern, muon": (MODERN, MUON, [4.00733, 3.94558, 3.78222, 3.59676]),
    "classic, adamw": (CLASSIC, ADAMW, [4.0102, 3.96172, 3.97843, 3.93139]),
}


@pytest.mark.parametrize(("parts", "optimizer", "losses"), GOLDEN.values(), ids=GOLDEN)
def test_golden_losses(tmp_path, parts, optimizer, losses):
    """The first three steps and the validation after them, exactly as they were when this was written.

    Update the numbers only with a change that is meant to alter training, and say so in the CHANGELOG.
    """
    _, _, record = train(tmp_path, parts, optimizer)
    found = record.column("train/loss") + record.column("val/loss")
    assert found == pytest.approx(losses, abs=2e-5)


def test_loss_starts_at_the_logarithm_of_the_vocabulary(tmp_path):
    module, _, record = train(tmp_path)
    assert record.column("train/loss")[0] == pytest.approx(math.log(module.model.vocab_size), abs=1e-5)


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_accumulated_steps_equal_whole_ones(tmp_path, micro_batches):
    whole, _, record = train(tmp_path)
    split, _, split_record = train(tmp_path, accumulate_grad_batches=micro_batches)
    assert split_record.column("train/loss") == pytest.approx(record.column("train/loss"), abs=1e-5)
    assert [row["step"] for row in split_record.rows] == [row["step"] for row in record.rows]
    for a, b in zip(split.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("tokenizer", [CharTokenizer, partial(BPETokenizer, vocab_size=300)], ids=["char", "bpe"])
def test_validation_is_the_exact_mean_over_the_split(tmp_path, tokenizer):
    """Of batches with unequal numbers of targets, and without the label smoothing of the training loss."""
    options = {"tokenizer": tokenizer, "objective": NextToken(label_smoothing=0.3), "val_tokens_per_batch": 4 * 16}
    module, data, record = train(tmp_path, val_every_n_steps=3, **options)
    sizes = [int((targets != -100).sum()) for _, targets in data.val_loader()]
    assert sizes[:-1] == [64] * (len(sizes) - 1) and len(sizes) > 2 and 0 < sizes[-1] < 64
    tokens = torch.tensor(data.corpus.val.astype("int64"))
    loss, correct, count, perplexity = 0.0, 0, 0, Perplexity(ignore_index=None)
    with torch.inference_mode():
        for start in range(0, len(tokens) - 1, 16):
            row = tokens[start : start + 17]
            logits = module.model(row[None, :-1])
            loss += F.cross_entropy(logits[0], row[1:], reduction="sum").item()
            correct += (logits[0].argmax(dim=-1) == row[1:]).sum().item()
            count += len(row) - 1
            perplexity.update(logits, row[None, 1:])
    assert count == len(tokens) - 1
    assert record.column("val/loss") == pytest.approx([loss / count], abs=1e-5)
    nats = loss / count * len(tokens)  # of the 400 characters, the last tenth of the play
    assert record.column("val/bpc") == pytest.approx([nats / 400 / math.log(2)], abs=1e-5)
    assert correct > 0 and record.column("val/accuracy") == pytest.approx([correct / count])
    assert record.column("val/perplexity") == pytest.approx([perplexity.compute().item()], rel=1e-4)


def test_every_metric_of_the_contract_is_logged(tmp_path):
    _, _, record = train(tmp_path, gradient_clip_val=0.1)
    names = {name for row in record.rows for name in row}
    assert names >= {
        *("train/loss", "val/loss", "val/bpc", "val/perplexity", "val/accuracy", "optim/lr", "optim/grad_norm"),
        *(
            "progress/tokens",
            "progress/epoch",
            "throughput/tokens_per_s",
            "throughput/step_ms",
            "throughput/mfu",
            "memory/max_gib",
        ),
    }
    assert record.column("progress/tokens") == [64, 128, 192]
    assert record.column("progress/epoch") == pytest.approx([64 / 3600, 128 / 3600, 192 / 3600])
    assert record.column("optim/lr") == [0.02] * 3


@pytest.mark.parametrize("optimizer", [MUON, ADAMW], ids=["muon", "adamw"])
def test_clipping_works_with_fused_optimizers_under_bf16(tmp_path, monkeypatch, optimizer):
    monkeypatch.setattr(metrics, "peak_flops", lambda device, precision: None)  # slow where bfloat16 is
    module, _, record = train(tmp_path, optimizer=optimizer, precision="bf16-mixed", gradient_clip_val=1e-6)
    norms = record.column("optim/grad_norm")
    assert len(norms) == 3 and min(norms) > 1e-3, "the norm is the one before clipping"
    assert all(p.dtype == torch.float32 for p in module.model.parameters())


def test_clipping_bounds_the_gradient(tmp_path):
    sgd = partial(torch.optim.SGD, lr=1.0)
    clipped, _, _ = train(tmp_path, optimizer=sgd, gradient_clip_val=1e-3, max_steps=1)
    torch.manual_seed(1)
    start = GPT(vocab_size=clipped.model.vocab_size, **SIZES, **MODERN)
    moved = [a.detach() - b.detach() for a, b in zip(clipped.model.parameters(), start.parameters(), strict=True)]
    assert torch.cat([m.flatten() for m in moved]).norm().item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("optimizer", [MUON, ADAMW], ids=["muon", "adamw"])
def test_each_step_has_the_learning_rate_that_the_schedule_gives_for_it(tmp_path, optimizer):
    """The first update uses step 0, the last one step max_steps - 1; what is logged is what was used."""
    factors, used = [0.5, 1.0, 0.25, 0.125], []

    class Watch(lightning.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            used.append([group["lr"] for group in optimizer.param_groups])

    def schedule(step, *, total_steps):
        return factors[step] if total_steps == 4 and step < 4 else 1e9

    callbacks = [Metrics(), Watch()]
    module, _, record = train(tmp_path, MODERN, optimizer, scheduler=schedule, max_steps=4, callbacks=callbacks)
    assert used == [pytest.approx([f * peak for peak in module.peak_lrs]) for f in factors]
    assert record.column("optim/lr") == [rates[0] for rates in used]


def test_a_resumed_run_has_the_learning_rates_of_its_configuration():
    """And not those of the optimizer's state that it loads."""
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.25)
    module = SimpleNamespace(peak_lrs=[0.1], lr_schedulers=lambda: schedule, global_step=3)
    module.trainer, module.lr_factor = SimpleNamespace(optimizers=[optimizer]), {3: 0.25}.get
    LanguageModel.on_train_start(module)
    (group,) = optimizer.param_groups
    assert group["initial_lr"] == 0.1 and group["lr"] == 0.025
    optimizer.step()
    schedule.step()
    assert group["lr"] == 0.025, "and in the steps after it"


def test_dropout_is_drawn_from_the_step_and_the_device():
    """Each micro-batch of each step, on each device, has masks of its own, and the same ones whatever ran before."""
    trainer = SimpleNamespace(global_step=0, accumulate_grad_batches=2, world_size=2)
    module = SimpleNamespace(trainer=trainer, device=torch.device("cpu"), seed=1)
    drawn = {}
    for step, micro, rank in product((0, 1), (0, 1), (0, 1)):
        module.global_step, module.global_rank = step, rank
        torch.rand(step + micro + rank)  # whatever ran before
        LanguageModel.on_train_batch_start(module, (), 2 * step + micro)
        drawn[step, micro, rank] = torch.rand(4).tolist()
    assert len({tuple(v) for v in drawn.values()}) == 8
    module.global_step, module.global_rank = 1, 0
    LanguageModel.on_train_batch_start(module, (), 3)
    assert torch.rand(4).tolist() == drawn[1, 1, 0]


def test_a_compiled_run_compiles_two_functions_and_keeps_the_names(tmp_path, monkeypatch):
    """One graph for training and one for validation, whatever comes in between; without the code that takes minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain, _, _ = train(tmp_path)
    graphs = []

    class Watch(Samples):
        def on_train_batch_end(self, *args, **kwargs):
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])

    callbacks = [Metrics(), Watch(run=Run(tmp_path, {}), max_new_tokens=4)]
    module, _, _ = train(tmp_path, compile=True, val_every_n_steps=1, callbacks=callbacks)
    assert graphs == [1, 2, 2]
    assert list(module.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), plain.parameters(), strict=True))


def test_a_gpu_waits_for_its_gradient_where_it_waits_for_its_metrics():
    looks = []
    trainer = SimpleNamespace(scaler=None, log_every_n_steps=5)
    module = SimpleNamespace(model=torch.nn.Linear(1, 1), trainer=trainer, device=torch.device("cuda"))
    module.refuse_non_finite = lambda: looks.append(module.global_step + 1)
    module.model(torch.ones(1)).backward()
    for module.global_step in range(12):  # steps that are done
        LanguageModel.configure_gradient_clipping(module, None)
    assert looks == [5, 10]


@pytest.mark.parametrize(
    ("precision", "fused", "refused"),
    [("16-mixed", True, True), ("16-mixed", False, False), ("bf16-mixed", True, False)],
)
def test_a_fused_optimizer_does_not_go_with_scaled_gradients(precision, fused, refused):
    """On a machine without a GPU the Trainer refuses 16-mixed before, so this is the module's rule alone."""
    model = torch.nn.Linear(2, 2)
    optimizer = partial(torch.optim.AdamW, lr=1e-3, fused=fused)
    module = LanguageModel(model, optimizer=optimizer, scheduler=SCHEDULE, objective=NextToken(), seed=1)
    trainer = SimpleNamespace(precision=precision)
    if refused:
        with pytest.raises(ValueError, match="fused"):
            module.check_trainer(trainer)
    else:
        module.check_trainer(trainer)
