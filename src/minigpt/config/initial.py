"""The configuration of a run that starts from the weights of another model: `init_from=...`."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from minigpt.config.errors import ConfigError
from minigpt.config.packaged import typed_targets
from minigpt.config.saved import check_saved

ADJUSTABLE = ("dropout", "attention_dropout", "adapter")  # options of a model that leave its weights what they are


def merge_initial(composed: DictConfig) -> DictConfig:
    """Put the model and the tokenizer of `init_from` in the place of those of a new run; without it change nothing.

    Raises:
        ValueError: there is no such model, or one that may not be built.
        ConfigError: the command line chooses a model or a tokenizer, too.
    """
    reference = composed.get("init_from")
    if not isinstance(reference, str):
        return composed
    overrides = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    adjusted: dict[str, Any] = {}
    for override in overrides:
        group, _, option = override.key_or_group.replace("/", ".").partition(".")
        option = option.partition(".")[0]
        if group == "model" and option in ADJUSTABLE:
            adjusted[option] = composed.model.get(option)
        elif group == "model" or (group, option) == ("data", "tokenizer"):
            raise ConfigError(
                f"init_from={reference} brings its own model and tokenizer: leave {override.input_line} out"
            )
    # torch, which a command line without `init_from` is checked without.
    from minigpt.inference.initial_model import tokenizer_node
    from minigpt.inference.load import find_model

    loaded = find_model(reference, str(composed.paths.runs_dir), "cpu", trusted=typed_targets())
    own: dict[str, Any] = {"model": loaded.metadata["model"]}
    node = tokenizer_node(loaded.tokenizer)
    if node is not None and "tokenizer" in composed.data:
        own["data"] = {"tokenizer": node}
    check_saved(reference, OmegaConf.create(own))
    with open_dict(composed):
        composed.model = own["model"] | adjusted
        if "data" in own:
            composed.data.tokenizer = node
    return composed
