"""Loading checkpoints: components of miniGPT and those that the user trusts, and nothing else."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file
from tests.inference.checkpoints import save_checkpoint

from minigpt.config.signature import find_source, imported_names, parse_module, read_signature
from minigpt.data.tokenizer import BPETokenizer, CharTokenizer
from minigpt.inference.load import build_model, find_model, load_average, load_model
from minigpt.model.gpt import Bigram
from minigpt.runs.checkpoint_io import AtomicCheckpointIO, load_checkpoint

FOREIGN = ["os.system", "torch.nn.Linear", "minigpt.runs.checkpoint_io.load_checkpoint", "minigpt.model.gpt.nn.Linear"]
BIGRAM = "minigpt.model.gpt.Bigram"
METADATA = {
    "model": {"_target_": BIGRAM, "_partial_": True, "block_size": 4},
    "objective": {"_target_": "minigpt.model.objectives.NextToken"},
    "tokenizer": CharTokenizer("abc").state(),
    "text": {"path": "x.txt", "sha256": "0", "val_fraction": 0.1, "val_batch_size": 4, "block_size": 4},
    "precision": "32-true",
}


@pytest.fixture
def foreign_class(tmp_path, monkeypatch):
    """The dotted name of a model in a module outside minigpt, which is on the search path."""
    source = "from minigpt.model.gpt import Bigram\nclass MyBigram(Bigram):\n    pass\n"
    (tmp_path / "my_models.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    for cached in (find_source, parse_module, imported_names, read_signature):  # of the module of another test
        cached.cache_clear()
    yield "my_models.MyBigram"
    sys.modules.pop("my_models", None)


def save_foreign(path, target):
    """A checkpoint of a Bigram whose class has another name."""
    model = Bigram(vocab_size=3, block_size=4)
    metadata = METADATA | {"model": METADATA["model"] | {"_target_": target}}
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    AtomicCheckpointIO().save_checkpoint({"minigpt": metadata, "state_dict": state, "global_step": 7}, path)
    return path


@pytest.mark.parametrize("target", [*FOREIGN, "", None, 3, ["os.system"]], ids=str)
def test_other_names_than_those_of_components_are_refused(target):
    with pytest.raises(ValueError, match=r"not a component of minigpt\.model"):
        build_model({"_target_": target, "command": "true"})
    with pytest.raises(ValueError, match=r"not a component of minigpt\.model"):
        build_model({"_target_": BIGRAM, "block_size": {"_target_": target}})


@pytest.mark.parametrize("target", ["os.system", "minigpt.runs.run.open_run", "torch.nn.Linear"])
def test_a_checkpoint_with_a_foreign_class_is_refused(tmp_path, target):
    metadata = METADATA | {"model": {"_target_": target}, "step": 1}
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors", {"minigpt": json.dumps(metadata)})
    with pytest.raises(ValueError, match=f"names '{target}', which is not a component of minigpt.model"):
        load_model(tmp_path / "x.safetensors")


def test_a_foreign_class_is_imported_only_if_it_is_trusted_by_its_exact_name(tmp_path, foreign_class):
    path = save_foreign(tmp_path / "step_7.ckpt", foreign_class)
    for trusted in (frozenset(), frozenset({"my_models", "my_models.Other", BIGRAM})):
        with pytest.raises(ValueError, match=r"'my_models.MyBigram', which is not a component .*: name it on the comm"):
            load_model(path, trusted)
        assert "my_models" not in sys.modules
    trusted = frozenset({foreign_class})
    for loaded in (load_model(path, trusted), find_model(str(path), str(tmp_path), "cpu", trusted=trusted)):
        assert type(loaded.model).__name__ == "MyBigram" and type(loaded.model).__module__ == "my_models"
    averaged = find_model(str(path), str(tmp_path), "cpu", average_last_n=1, trusted=trusted)
    assert torch.equal(averaged.model.table.weight, load_average(tmp_path, 1, trusted).model.table.weight)


def test_trusting_one_class_is_not_trusting_what_a_checkpoint_nests_in_it(foreign_class):
    node = {"_target_": foreign_class, "block_size": {"_target_": "os.system", "command": "true"}}
    with pytest.raises(ValueError, match=r"'os.system', which is not a component"):
        build_model(node, frozenset({foreign_class}))


def test_what_is_trusted_may_be_nested_and_may_be_the_objective(tmp_path, foreign_class):
    source = (tmp_path / "my_models.py").read_text()
    (tmp_path / "my_models.py").write_text(source + "from minigpt.model.objectives import NextToken as MyObjective\n")
    names = frozenset({foreign_class, "my_models.MyObjective"})
    build_model({"_target_": BIGRAM, "block_size": {"_target_": foreign_class}}, names)
    path = save_foreign(tmp_path / "step_7.ckpt", foreign_class)
    content = load_checkpoint(path)
    content["minigpt"]["objective"]["_target_"] = "my_models.MyObjective"
    AtomicCheckpointIO().save_checkpoint(content, path)
    assert load_model(path, names).objective.can_generate
    with pytest.raises(ValueError, match=r"'my_models.MyObjective', which is not a component"):
        load_model(path, frozenset({foreign_class}))


@pytest.mark.parametrize("name", ["no_such_module.Model", "my_models.NoSuchModel", "Model"])
def test_a_trusted_class_that_does_not_exist_is_one_line(foreign_class, name):
    with pytest.raises(ValueError, match=f"{name} cannot be imported: ") as failure:
        build_model({"_target_": name}, frozenset({name}))
    assert "\n" not in str(failure.value)


def test_checkpoints_with_other_characters_are_not_averaged(tmp_path):
    paths = [tmp_path / f"step_{step}.ckpt" for step in (7, 8)]
    for path, characters in zip(paths, ("abc", "abd"), strict=True):
        save_checkpoint(path, CharTokenizer(characters))
    with pytest.raises(ValueError, match=r"step_7\.ckpt has another model than"):
        load_average(tmp_path, 2)


def test_the_batches_that_a_file_asks_for_fit_in_memory(tmp_path):
    loaded = load_model(save_checkpoint(tmp_path / "step_7.ckpt", CharTokenizer("abc")))
    assert loaded.val_batch_size == 4
    for block_size, expected in ((1000, 65), (10**6, 1)):
        loaded.text.update(val_batch_size=10**9, block_size=block_size)
        assert loaded.val_batch_size == expected


@pytest.mark.parametrize("tokenizer", [CharTokenizer("abc"), BPETokenizer(vocab_size=257, merges=["a b"])])
def test_the_newest_checkpoints_are_averaged(tmp_path, tokenizer):
    checkpoint = save_checkpoint(tmp_path / "step_7.ckpt", tokenizer)
    content, other = load_checkpoint(checkpoint), load_checkpoint(checkpoint)
    for state in (content["state_dict"], other["state_dict"]):
        for weight in state.values():
            weight.normal_()
    AtomicCheckpointIO().save_checkpoint(content | {"global_step": 8}, checkpoint.with_name("step_8.ckpt"))
    AtomicCheckpointIO().save_checkpoint(other | {"global_step": 10}, checkpoint.with_name("step_10.ckpt"))
    averaged = load_average(checkpoint.parent, 2)
    name, weight = next(iter(averaged.model.named_parameters()))
    expected = (content["state_dict"][f"model.{name}"] + other["state_dict"][f"model.{name}"]) / 2
    torch.testing.assert_close(weight.detach(), expected)
    assert averaged.step == 10
    with pytest.raises(ValueError, match="has 3 checkpoints of steps, not 4"):
        load_average(checkpoint.parent, 4)
