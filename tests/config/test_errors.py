"""What a wrong option is answered with, and that the answer works."""

import re
from typing import get_type_hints

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from minigpt.config.check import check
from minigpt.config.errors import ConfigError, explain, explain_flags
from minigpt.config.other_words import OTHER_WORDS
from minigpt.config.packaged import CONF, components, config_groups
from minigpt.config.schema import COMMANDS, PASSED
from minigpt.config.signature import read_signature


@pytest.fixture(scope="module")
def config():
    """The configuration of src/train.py, not yet checked; a copy for each answer that is followed."""
    import minigpt.cli  # noqa: F401  # its resolvers

    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("train", ["name=a", "data/tokenizer=bpe"])
    return composed


def answer(config, option: str) -> str:
    """The line for an option that the configuration does not have."""
    with pytest.raises((ConfigAttributeError, ConfigKeyError)) as unknown:
        OmegaConf.update(config.copy(), option, 1)
    return explain(unknown.value)


def accepts(config, option: str) -> bool:
    """Whether an option, with its plus, is one: all that may be wrong with it is the value."""
    if "/" in option:
        return option in config_groups()
    own = config.copy()
    OmegaConf.set_struct(own, not option.startswith("+"))
    try:
        OmegaConf.update(own, option.lstrip("+"), "a value", force_add=option.startswith("+"))
        check(own, "train")
    except ConfigError as error:
        return " must be " in str(error)
    return True


def advised(line: str) -> str:
    """The option that a line advises."""
    found = re.search(
        r"did you mean '([^']+)'|set it with a plus, (\+\S+)=|set that instead, (\S+)=|: (\S+)=\.\.\.$", line
    )
    assert found, line
    return next(group for group in found.groups() if group)


WORDS = [
    ("lr", "optimizer.lr"),
    ("learning_rate", "optimizer.lr"),
    ("weight_decay", "optimizer.weight_decay"),
    ("batch_size", "data.batch_size"),
    ("batch-size", "data.batch_size"),
    ("block_size", "model.block_size"),
    ("n_layer", "model.num_layers"),
    ("num_layers", "model.num_layers"),
    ("n_head", "model.num_heads"),
    ("n_embd", "model.dim"),
    ("d_model", "model.dim"),
    ("dropout", "model.dropout"),
    ("max_steps", "trainer.max_steps"),
    ("max_iters", "trainer.max_steps"),
    ("epochs", "trainer.max_steps"),
    ("max_epochs", "trainer.max_steps"),
    ("eval_interval", "trainer.val_every_n_steps"),
    ("warmup_steps", "scheduler.warmup_steps"),
    ("warmup_iters", "scheduler.warmup_steps"),
    ("grad_clip", "trainer.gradient_clip_val"),
    ("gradient_accumulation_steps", "trainer.accumulate_grad_batches"),
    ("device", "trainer.accelerator"),
    ("devices", "trainer.devices"),
    ("gpus", "trainer.devices"),
    ("dtype", "precision"),
    ("model.n_layer", "model.num_layers"),
    ("optimizer.learning_rate", "optimizer.lr"),
    ("trainer.max_epochs", "trainer.max_steps"),
    ("trainer.gpus", "trainer.devices"),
    ("trainer.precision", "precision"),
    ("model.dimm", "model.dim"),
    ("callbacks.samples.prompts", "+callbacks.samples.prompt"),
]


@pytest.mark.parametrize(("word", "option"), WORDS)
def test_the_words_of_others_are_answered_with_ours(config, word, option):
    assert advised(answer(config, word)) == option
    assert accepts(config, option)


def test_flags_are_answered_with_the_option():
    assert explain_flags(["--batch-size=8"]).endswith("options have no dashes: data.batch_size=...")
    assert explain_flags(["--modell"]).startswith("unrecognized arguments: --modell;")


def options_left_out(config) -> list[str]:
    """Every option of every component of the default recipe that the configuration leaves at its default."""
    found = []
    for path, node in components(OmegaConf.to_container(config, resolve=False)):
        signature = read_signature(str(node["_target_"])) or {}
        found += [f"{path}.{name}" for name in signature.keys() - node.keys()]
        found += [f"{path}.{name}" for name in PASSED.get(path, {})]
    return sorted(set(found))


def test_advice_about_an_option_that_is_left_out_is_never_refused(config):
    options = options_left_out(config)
    assert len(options) > 60
    for option in options:
        line = answer(config, option)
        if "leave it out" in line:
            continue
        assert accepts(config, advised(line)), (option, line)


def test_every_word_of_others_leads_to_an_option_that_a_command_has(config):
    groups = config_groups()
    commands = {name for command in COMMANDS.values() for name in get_type_hints(command)}
    for option in OTHER_WORDS:
        known = option in groups or option in commands or OmegaConf.select(config, option, default="none") != "none"
        assert known or option in ("optimizer.betas", "data.tokenizer.vocab_size"), option


@pytest.mark.parametrize(
    "precision", ["bf16", "fp16", "fp32", "bfloat16", "float16", "float32", "16", "32", "16-mixed", "bf16-mixed"]
)
def test_precisions_are_accepted_by_any_of_their_names(config, precision):
    own = config.copy()
    with open_dict(own):
        own.precision = precision
    check(own, "train")
