"""Build what a checked configuration names."""

from collections.abc import Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf


def build(node: Mapping[str, Any], **arguments: Any) -> Any:
    """Call the `_target_` of a node with its options and further arguments; containers are passed as plain ones."""
    if not arguments:
        return instantiate(node, _convert_="all")
    # Hydra would copy the arguments into its own containers.
    return instantiate(node, _convert_="all", _partial_=True)(**arguments)


def build_all(nodes: Mapping[str, Any], **arguments: Any) -> list[Any]:
    """Build the components of a group, without those set to null; `arguments` complete those with `_partial_: true`."""
    present = [node for node in nodes.values() if node is not None]
    return [build(node, **arguments) if node.get("_partial_") else build(node) for node in present]


def invocation() -> tuple[list[str], str, dict[str, Any]]:
    """The options of this command line, Hydra's own configuration as YAML, and the choice of each group."""
    hydra = HydraConfig.get()
    own = OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra}))
    return list(hydra.overrides.task), own, dict(hydra.runtime.choices)
