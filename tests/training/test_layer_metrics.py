"""Figures, histograms and images of the layers during a training."""

import math

import lightning
import numpy as np
import pytest
import torch
from tests.training.test_module import ADAMW, CLASSIC, MODERN, train

from minigpt.training import loggers
from minigpt.training.callbacks import attention_images, layer_metrics
from minigpt.training.callbacks.attention_images import AttentionImages, draw
from minigpt.training.callbacks.layer_metrics import LayerMetrics
from minigpt.training.callbacks.metrics import Metrics

PREFIXES = ["activation_rms", "attention_entropy", "grad_norm", "max_logit", "update_ratio"]


class Weights(lightning.Callback):
    """Keeps the weights and gradients of each step."""

    def __init__(self):
        self.steps, self.gradients = [], []

    def on_train_batch_start(self, trainer, pl_module, *args):
        self.before = [p.detach().clone() for p in pl_module.model.parameters()]

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append([p.grad.clone() for p in pl_module.model.parameters()])

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.steps.append((self.before, [p.detach().clone() for p in pl_module.model.parameters()]))


def norm(tensors):
    return math.sqrt(sum(float((t.double() ** 2).sum()) for t in tensors))


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_norms_of_the_layers_make_up_those_of_the_model(tmp_path, micro_batches):
    """Every second step, of gradients before clipping and of what the optimizer has changed."""
    weights = Weights()
    callbacks = [Metrics(), weights, LayerMetrics(every_n_steps=2)]
    options = {"gradient_clip_val": 0.01, "accumulate_grad_batches": micro_batches, "callbacks": callbacks}
    _, _, record = train(tmp_path, CLASSIC, ADAMW, max_steps=5, **options)
    rows = [row for row in record.rows if "grad_norm/embedding" in row]
    assert [row["step"] for row in rows] == [2, 4]
    assert sorted({name.split("/")[0] for name in rows[0] if name != "step"}) == PREFIXES
    totals = [row["optim/grad_norm"] for row in record.rows if "optim/grad_norm" in row]
    for row in rows:
        step, last = row["step"], row["step"] * micro_batches - 1
        layers = [name.removeprefix("grad_norm/") for name in row if name.startswith("grad_norm/")]
        norms = [torch.tensor(row[f"grad_norm/{layer}"]) for layer in layers]
        assert norm(norms) == pytest.approx(totals[step - 1], rel=1e-4)
        assert layers == ["embedding", "positions", "blocks.0", "blocks.1", "norm"]
        before, after = weights.steps[last]
        ratio = norm([after[0] - before[0]]) / norm([after[0]])
        assert row["update_ratio/embedding"] == pytest.approx(ratio, rel=1e-4)
        assert row["grad_norm/embedding"] == pytest.approx(norm(weights.gradients[step - 1][:1]), rel=1e-4)


def test_a_training_is_the_same_with_and_without(tmp_path):
    plain, measured = (
        train(tmp_path, dropout=0.2, max_steps=4, callbacks=[Metrics(), *more])[2].column("train/loss")
        for more in ([], [LayerMetrics(every_n_steps=1), AttentionImages()])
    )
    assert plain == measured


def test_data_wait_is_the_time_in_the_loader(tmp_path, monkeypatch):
    from minigpt.data import loaders

    clock = iter(range(10_000))  # each call takes a second, and a batch lies between two of them
    monkeypatch.setattr(loaders, "time", type("", (), {"perf_counter": lambda: next(clock)}))
    options = {"max_steps": 4, "log_every_n_steps": 2, "accumulate_grad_batches": 2}
    assert train(tmp_path, **options)[2].column("throughput/data_wait_ms") == [2000, 2000]


@pytest.fixture
def shown(monkeypatch):
    """What loggers that show images and histograms are given."""
    shown = []
    monkeypatch.setattr(layer_metrics, "log_histogram", lambda _, *what: shown.append(what))
    monkeypatch.setattr(attention_images, "log_image", lambda _, *what: shown.append(what))
    monkeypatch.setattr(attention_images, "shows_media", lambda _: True)
    return shown


def test_histograms_are_of_all_weights_and_gradients_by_choice(tmp_path, shown):
    module, *_ = train(tmp_path, callbacks=[Metrics(), LayerMetrics(every_n_steps=3, histograms=True)])
    assert {step for *_, step in shown} == {3}
    by_name = {name: values for name, values, _ in shown}
    names = ["embedding", "blocks.0", "blocks.1", "head"]
    assert list(by_name) == [f"{kind}/{name}" for kind in ("weights", "gradients") for name in names]
    head = module.model.head.weight.detach().flatten().numpy()
    assert np.array_equal(by_name["weights/head"], head)
    assert by_name["gradients/head"].shape == head.shape and by_name["gradients/head"].any()
    shown.clear()
    train(tmp_path, callbacks=[Metrics(), LayerMetrics(every_n_steps=3)])
    assert not shown


def test_attention_is_one_image_of_layers_and_heads(tmp_path, shown):
    train(tmp_path, MODERN, max_steps=4, val_every_n_steps=2, callbacks=[Metrics(), AttentionImages(num_tokens=8)])
    assert [(name, step) for name, _, step in shown] == [("attention", 2), ("attention", 4)]
    image = shown[0][1]
    side = attention_images.ZOOM * (8 + 2)  # with a frame
    assert image.shape == (2 * side, 2 * side, 3) and image.dtype == np.uint8


def test_white_is_no_attention_and_ink_the_most():
    weights = torch.tensor([[[1.0, 0.0], [0.25, 0.75]]])
    image = draw([weights])[
        attention_images.ZOOM : -attention_images.ZOOM, attention_images.ZOOM : -attention_images.ZOOM
    ]
    corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners[0].tolist() == attention_images.INK.tolist() and corners[1].tolist() == [255, 255, 255]
    assert 0 <= corners[3][0] < corners[2][0] < 255


def test_tensorboard_takes_the_same_images_histograms_and_texts(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tests.training.test_loggers import run_in

    logger = loggers.TensorBoard(run=run_in(tmp_path))
    loggers.log_image(logger, "attention", np.zeros((4, 6, 3), np.uint8), 5)
    loggers.log_histogram(logger, "weights/head", np.array([1.0, 2.0, np.inf]), 5)
    loggers.log_sample(logger, loggers.Sample("a", "ab"), 5)
    logger.save()
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = events.Tags()
    assert tags["images"] == ["attention"] and tags["histograms"] == ["weights/head"]
    assert events.Images("attention")[0].step == 5 and events.Images("attention")[0].width == 6
    assert events.Histograms("weights/head")[0].histogram_value.max == 2.0
    assert tags["tensors"] == ["samples/text_summary"]
