"""A saved configuration is plain data, and this command alone says where to write."""

import pytest
from omegaconf import OmegaConf

from minigpt.config import saved as saved_config
from minigpt.config.errors import ConfigError
from minigpt.config.packaged import packaged_targets
from minigpt.config.saved import check_targets, keep_own_places, read_saved


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: ${oc.env:HOME}", "values alone"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: !!python/object/apply:os.system [true]", "damaged"),
        ("a: [1", "damaged"),
        ("[1, 2]", "a value of type list instead of keys and values"),
        ("", "null instead of keys and values"),
        ("a: 2001-13-45", "damaged"),
        ("a: 2001-01-01", "a value of type date"),
        ("1: a", "a value of type int as a key"),
        ("model._target_: a", "'model._target_' is not an option"),
        ("model: {_args_: [1]}", "'_args_' is not an option"),
        ('a: "$\\x7boc.env:HOME}"', "values alone"),
        ("[" * 3000, "damaged"),
    ],
)
def test_anything_but_values_is_refused(tmp_path, text, says):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_saved(tmp_path / "config.yaml")


def composed():
    return OmegaConf.create(
        {
            "paths": {"data_dir": "data", "log_dir": "logs", "run_dir": None},
            "data": {"data_dir": "${paths.data_dir}", "url": "https://known/text"},
            "logger": {"wandb": {"save_dir": "${paths.log_dir}/wandb"}},
        }
    )


def test_places_are_this_command_s():
    saved = OmegaConf.create(
        {
            "paths": {"data_dir": "/evil", "log_dir": "/evil", "run_dir": "/evil"},
            "data": {"data_dir": "/evil", "url": "http://evil/text"},
            "logger": {"wandb": {"save_dir": "/evil"}, "other": {"save_dir": "/evil"}},
        }
    )
    keep_own_places(saved, composed())
    resolved = OmegaConf.to_container(saved, resolve=True)
    assert "evil" not in str(resolved)
    assert resolved["logger"]["other"]["save_dir"] == "logs/wandb" and resolved["data"]["url"] is None


def test_the_known_address_stays_and_an_unknown_folder_is_refused():
    saved = OmegaConf.create({"data": {"url": "https://known/text"}})
    keep_own_places(saved, composed())
    assert saved.data.url == "https://known/text"
    with pytest.raises(ConfigError, match="default_root_dir"):
        keep_own_places(OmegaConf.create({"trainer": {"default_root_dir": "/evil"}}), composed())


@pytest.fixture
def typed(monkeypatch):
    """Components that the command line names."""
    names = set()
    monkeypatch.setattr(saved_config, "typed_targets", lambda: frozenset(names))
    return names


@pytest.mark.parametrize(
    "target",
    ["os.system", "builtins.eval", "torch.load", "torch.hub.load", "minigpt.model.kv_cache.KVCache", "", None, 3],
)
@pytest.mark.parametrize("place", ["model", "callbacks.samples", "optimizer.betas.0"])
def test_only_packaged_components_are_built_from_a_saved_configuration(typed, tmp_path, target, place):
    assert "minigpt.model.gpt.GPT" in packaged_targets()
    good = OmegaConf.create({"model": {"_target_": "minigpt.model.gpt.GPT"}, "optimizer": {"betas": [{}]}})
    check_targets(tmp_path, good)
    OmegaConf.update(good, f"{place}._target_", target, force_add=True)
    with pytest.raises(ConfigError, match="which no file in conf/ has"):
        check_targets(tmp_path, good)


@pytest.mark.parametrize("place", ["seed", "optimizer", "model.mlp", "model.attention.mlp"])
def test_a_component_in_another_place_is_refused(typed, tmp_path, place):
    saved = OmegaConf.create({})
    OmegaConf.update(saved, f"{place}._target_", "minigpt.model.attention.CausalSelfAttention", force_add=True)
    with pytest.raises(ConfigError, match="which no file in conf/ has there"):
        check_targets(tmp_path, saved)


def test_components_may_stand_where_conf_puts_them(typed, tmp_path):
    attention = {"_target_": "minigpt.model.attention.BidirectionalAttention"}
    stopping = {"_target_": "lightning.pytorch.callbacks.EarlyStopping"}
    callbacks = {"early_stopping": stopping, "a_second_one": stopping}
    model = {"attention": attention, "encoder_attention": attention}
    check_targets(tmp_path, OmegaConf.create({"model": model, "callbacks": callbacks}))


def test_a_component_that_is_typed_again_is_trusted(typed, tmp_path):
    typed.add("my.Attention")
    check_targets(tmp_path, OmegaConf.create({"model": {"_target_": "my.Attention"}}))
