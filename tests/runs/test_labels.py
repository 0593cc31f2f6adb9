"""What people see of a run: its name, and its options as they are typed."""

import pytest

from minigpt.runs.labels import MAX_NAME_CHARS, readable_config, short_name


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], ""),
        (["optimizer=muon", "optimizer.lr=0.01", "seed=2"], "optimizer=muon lr=0.01 seed=2"),
        (["model/attention=grouped_query", "+data.dev_split=true"], "attention=grouped_query dev_split=true"),
        (["seed=1", "name=first try", "~callbacks.samples"], "first try seed=1 ~samples"),
        (["model.dropout=0.1", "my.dropout=0.2"], "model.dropout=0.1 my.dropout=0.2"),
        (["paths.log_dir=/x", "logger=wandb", "logger.wandb.group=g", "resume=latest", "tags=[a]", "hydra.x=1"], ""),
        ([f"callbacks.samples.prompt={'a' * 99}"], f"prompt={'a' * 39}…"),
    ],
)
def test_a_run_is_named_by_what_was_typed(overrides, name):
    assert short_name(overrides) == name


def test_a_name_has_a_length_that_can_be_shown():
    assert len(short_name([f"data.option_{i}={i}" for i in range(99)])) == MAX_NAME_CHARS


def test_a_configuration_reads_as_it_is_typed():
    config = {
        "name": "x",
        "seed": 1,
        "compile": False,
        "paths": {"log_dir": "logs"},
        "model": {"_target_": "a.B", "_partial_": True, "dim": 8, "attention": {"_target_": "a.C", "dropout": 0.0}},
        "callbacks": {"samples": None},
        "data": {"data_dir": "data", "sizes": [1, 2]},
    }
    choices = {"model": "nano", "model/attention": "plain", "experiment": None, "paths": "default", "hydra/help": "x"}
    assert readable_config(config, choices) == {
        **{"model": "nano", "model/attention": "plain", "seed": 1, "compile": False},
        **{"model.dim": 8, "model.attention.dropout": 0.0, "data.sizes": [1, 2]},
    }
