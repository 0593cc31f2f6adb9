"""What evaluate.py reports, against an independent plain computation of each protocol."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.inference.checkpoints import save_checkpoint

from minigpt.data.tokenizer import ByteTokenizer, CharTokenizer
from minigpt.inference.evaluation import evaluate_run, evaluate_runs, split_references
from minigpt.inference.load import load_model

TEXT = "abcde\nedcba\nabc" * 5
CONFIG = {"precision": None, "split": "val", "protocol": "exact", "num_windows": 50, "seed": 1, "stride": None}
CONFIG |= {"dynamic_optimizer": "sgd", "dynamic_lr": 0.1, "dynamic_decay": 0.0, "details": False, "format": None}
CONFIG |= {"output": None, "device": "cpu", "average_last_n": 1}


@pytest.fixture
def config(tmp_path):
    (tmp_path / "other.txt").write_text(TEXT)
    paths = {"data_dir": str(tmp_path), "runs_dir": str(tmp_path)}
    return CONFIG | {"eval_text": str(tmp_path / "other.txt"), "paths": paths}


def tokens_of(loaded):
    return torch.from_numpy(loaded.tokenizer.encode(TEXT).astype("int64"))


@torch.no_grad()
def brute_force(loaded, first, last):
    """Losses of the tokens (first, last] from one window of the text."""
    tokens = tokens_of(loaded)
    logits = loaded.model(tokens[None, first:last])[0]
    return F.cross_entropy(logits, tokens[first + 1 : last + 1], reduction="none")


def test_a_perplexity_beyond_a_float_is_null(loaded, config):
    for weight in loaded.model.parameters():
        weight.data.mul_(1000.0)
    report = evaluate_run(loaded, config)
    assert report["val_perplexity"] is None and report["val_loss"] > 100
    json.dumps(report, allow_nan=False)


def test_a_loss_that_is_not_a_number_is_no_result(loaded, config):
    loaded.model.head.weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"the loss of .*step_7.ckpt .* is not a number"):
        evaluate_run(loaded, config)


def test_a_text_is_scored_exactly(loaded, config):
    """In blocks of 8 tokens, the last one shorter; a token is a character here."""
    report, count = evaluate_run(loaded, config), len(TEXT) - 1
    losses = torch.cat([brute_force(loaded, start, min(start + 8, count)) for start in range(0, count, 8)])
    mean = losses.mean().item()
    assert (report["tokens"], report["characters"], report["step"]) == (count, len(TEXT), 7)
    assert report["checkpoint"] == str(loaded.path) and report["text"] == config["eval_text"]
    assert report["split"] == "other" and "standard_error" not in report
    assert report["val_loss"] == pytest.approx(mean, rel=1e-5)
    assert report["val_bpc"] == report["val_bpb"] == pytest.approx(mean / math.log(2), rel=1e-5)
    assert report["val_perplexity"] == pytest.approx(math.exp(mean), rel=1e-4)
    tokens = tokens_of(loaded)
    correct = sum(
        (loaded.model(tokens[None, s : min(s + 8, count)])[0].argmax(-1) == tokens[s + 1 : min(s + 8, count) + 1]).sum()
        for s in range(0, count, 8)
    )
    assert report["val_accuracy"] == pytest.approx(int(correct) / count)
    by_position = {row["position"]: row for row in report["loss_by_position"]}
    assert by_position[2]["loss"] == pytest.approx(losses[2::8].mean().item(), rel=1e-5)
    assert [by_position[p]["count"] for p in (0, 1, 7)] == [10, 10, 9]
    by_token = {row["token"]: row for row in report["loss_by_token"]}
    assert by_token["c"]["loss"] == pytest.approx(losses[tokens[1:] == 3].mean().item(), rel=1e-5)
    assert [row["loss"] * row["count"] for row in report["loss_by_token"]] == sorted(
        (row["loss"] * row["count"] for row in report["loss_by_token"]), reverse=True
    )
    assert sum(row["count"] for row in report["calibration"]) == count


def test_bits_per_byte_count_bytes(tmp_path):
    loaded = load_model(save_checkpoint(tmp_path / "step_7.ckpt", ByteTokenizer()))
    (tmp_path / "other.txt").write_text("naïve café " * 9)
    report = evaluate_run(loaded, CONFIG | {"eval_text": str(tmp_path / "other.txt"), "paths": {"data_dir": ""}})
    assert report["val_bpb"] == pytest.approx(report["val_loss"] / math.log(2))
    assert report["val_bpc"] == pytest.approx(report["val_bpb"] * 13 / 11), "two of eleven characters have two bytes"


@pytest.mark.parametrize("stride", [1, 3, 8])
def test_a_sliding_window_is_that_of_a_brute_force_loop(loaded, config, stride):
    """Each token from the first of the windows at 0, stride, 2 stride, ... that predicts it."""
    report, count = evaluate_run(loaded, config | {"protocol": "sliding", "stride": stride}), len(TEXT) - 1
    losses = []
    for target in range(1, count + 1):
        start = max(0, -(-(target - 8) // stride)) * stride
        losses.append(brute_force(loaded, start, target)[-1].item())
    assert report["sliding_window_loss"] == pytest.approx(np.mean(losses), rel=1e-5) and report["tokens"] == count
    assert "val_loss" not in report
    exact = evaluate_run(loaded, config)["val_loss"]
    assert (report["sliding_window_loss"] == pytest.approx(exact, rel=1e-5)) == (stride == 8)


def test_random_windows_have_a_mean_and_a_standard_error(loaded, config):
    report = evaluate_run(loaded, config | {"protocol": "random"})
    starts = np.random.default_rng(1).integers(len(TEXT) - 8, size=50)
    means = [brute_force(loaded, start, start + 8).mean().item() for start in starts.tolist()]
    assert report["random_crop_loss"] == pytest.approx(np.mean(means), rel=1e-5) and report["tokens"] == 400
    assert report["standard_error"] == pytest.approx(np.std(means, ddof=1) / math.sqrt(50), rel=1e-4)
    exact, many = (
        evaluate_run(loaded, config),
        evaluate_run(loaded, config | {"protocol": "random", "num_windows": 5000}),
    )
    assert many["random_crop_loss"] == pytest.approx(exact["val_loss"], rel=0.1) and "val_loss" not in many


@pytest.mark.parametrize("optimizer", ["sgd", "rms"])
def test_dynamic_evaluation_learns_from_what_it_has_scored(loaded, config, optimizer, monkeypatch):
    """Against a plain loop; and the weights are the trained ones afterwards."""
    monkeypatch.setattr("minigpt.inference.evaluation.RMS_WINDOWS", 5)
    monkeypatch.setitem(loaded.metadata["text"], "path", config["eval_text"])
    monkeypatch.setitem(loaded.metadata["text"], "sha256", "x")
    monkeypatch.setattr("minigpt.inference.eval_text.file_hash", lambda path: "x")
    trained = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    options = {"protocol": "dynamic", "dynamic_optimizer": optimizer, "dynamic_lr": 0.05, "dynamic_decay": 0.2}
    report = evaluate_run(loaded, config | options)
    assert all(torch.equal(value, trained[name]) for name, value in loaded.model.state_dict().items())
    weights, tokens = list(loaded.model.parameters()), tokens_of(loaded)
    base = [weight.detach().clone() for weight in weights]

    def gradients(first, last):
        loss = F.cross_entropy(loaded.model(tokens[None, first:last])[0], tokens[first + 1 : last + 1])
        return loss.item(), torch.autograd.grad(loss, weights)

    rms = [torch.ones(()) for _ in weights]
    if optimizer == "rms":
        starts = np.random.default_rng(1).integers(int(len(TEXT) * 0.9) - 8, size=5).tolist()
        found = [gradients(start, start + 8)[1] for start in starts]
        rms = [torch.stack([g[i] for g in found]).square().mean(0).sqrt() for i in range(len(weights))]
    mean = torch.cat([r.expand_as(w).flatten() for r, w in zip(rms, weights, strict=True)]).mean()
    losses, count = [], len(TEXT) - 1
    for start in range(0, count, 8):
        loss, grads = gradients(start, min(start + 8, count))
        losses.append(loss * (min(start + 8, count) - start))
        with torch.no_grad():
            for w, g, r, b in zip(weights, grads, rms, base, strict=True):
                scale = r + 1e-8 if optimizer == "rms" else r
                w += (0.2 * r / mean).clamp(max=1) * (b - w) - 0.05 * g / scale
    assert report["dynamic_loss"] == pytest.approx(sum(losses) / count, rel=1e-3) and "val_loss" not in report


def test_dynamic_evaluation_without_learning_is_exact(loaded, config):
    report = evaluate_run(loaded, config | {"protocol": "dynamic", "dynamic_lr": 0.0})
    assert report["dynamic_loss"] == pytest.approx(evaluate_run(loaded, config)["val_loss"], rel=1e-6)
    learned = evaluate_run(loaded, config | {"protocol": "dynamic", "dynamic_lr": 0.02})
    assert learned["dynamic_loss"] < report["dynamic_loss"] - 0.1, "the text repeats itself"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "sliding", "stride": 9}, "stride=9 must be at most"),
        ({"protocol": "random", "text": "abcdeabc"}, "8 tokens, too few for windows of 8"),
        ({"protocol": "dynamic", "precision": "bf16-mixed"}, "protocol=dynamic trains, in 32-true"),
        ({"split": "train"}, "leave one out"),
        ({"text": "a"}, "too short to be scored"),
    ],
)
def test_what_cannot_be_scored_is_refused(loaded, config, tmp_path, options, message):
    (tmp_path / "other.txt").write_text(options.pop("text", TEXT))
    with pytest.raises(ValueError, match=message):
        evaluate_run(loaded, config | options)


def test_several_checkpoints_stand_side_by_side(loaded, config, tmp_path, capsys):
    second = save_checkpoint(tmp_path / "step_9.ckpt", CharTokenizer("\nabcde"))
    run = f"{loaded.path},{second}"
    loss = evaluate_runs(config | {"run": run, "output": str(tmp_path / "scores.json")}, frozenset())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[1].endswith("step_7.ckpt") and lines[2].endswith("step_9.ckpt")
    assert lines[0].split()[:4] == ["step", "tokens", "characters", "val_loss"] and f"{loss:.4f}" in lines[1]
    found = json.loads((tmp_path / "scores.json").read_text())
    assert [row["checkpoint"] for row in found] == run.split(",") and found[0]["val_loss"] == loss
    assert len(found[0]["loss_by_position"]) == 8
    with pytest.raises(ValueError, match="exists already"):
        evaluate_runs(config | {"run": run, "output": str(tmp_path / "scores.json")}, frozenset())
    with pytest.raises(ValueError, match="no folder"):
        evaluate_runs(config | {"run": run, "output": str(tmp_path / "nowhere/scores.json")}, frozenset())
    with pytest.raises(ValueError, match="no run at nowhere"):
        evaluate_runs(config | {"run": f"{run},nowhere"}, frozenset())
    assert capsys.readouterr().out == ""
    evaluate_runs(config | {"run": f"[{run}]", "format": "json"}, frozenset())
    brief = json.loads(capsys.readouterr().out)
    assert brief == [{k: v for k, v in row.items() if not isinstance(v, list)} for row in found]


def test_details_are_tables(loaded, config, capsys):
    evaluate_runs(config | {"run": str(loaded.path), "details": True}, frozenset())
    printed = capsys.readouterr().out
    assert "2 to 3" in printed and "4 to 7" in printed and "'\\n'" in printed and "share of the loss" in printed
    assert "predicted with probability" in printed and "nan" not in printed
    evaluate_runs(config | {"run": str(loaded.path), "details": True, "format": "json"}, frozenset())
    assert len(json.loads(capsys.readouterr().out)["loss_by_position"]) == 8


def test_references_are_divided_at_commas(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b").mkdir()
    assert split_references("a,b") == ["a,b"] and split_references("latest") == ["latest"]
    assert split_references("a,c") == split_references("[a, c]") == ["a", "c"]
