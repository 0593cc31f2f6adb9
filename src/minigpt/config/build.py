"""Build what a checked configuration names."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf


def build(node: dict[str, Any], **extra: Any) -> Any:
    """What a node's `_target_` makes of its options; lists and dicts reach it as plain ones."""
    return instantiate(node, **extra, _convert_="all")


def build_all(nodes: dict[str, Any], **extra: Any) -> list[Any]:
    """Every part of a group, those set to null left out; `extra` completes the ones that are built in part."""
    parts = [build(node) for node in nodes.values() if node is not None]
    return [part(**extra) for part in parts] if extra else parts


def invocation() -> tuple[list[str], str]:
    """The options that this program was started with, and Hydra's own configuration as YAML."""
    hydra = HydraConfig.get()
    return list(hydra.overrides.task), OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra}))
