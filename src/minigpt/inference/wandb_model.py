"""Checkpoints that runs have uploaded to Weights & Biases, see `logger.wandb.log_model`."""

import re
from pathlib import Path
from urllib.parse import urlparse

from minigpt.runs.directory import BEST
from minigpt.runs.wandb_key import has_api_key

PREFIX = "wandb:"
REFERENCE = re.compile(r"wandb:(\w[\w.-]*)/(\w[\w.-]*)/(\w[\w.-]*)(?::(\w[\w.-]*))?", re.ASCII)


def download_checkpoint(reference: str, folder: Path) -> Path:
    """The best checkpoint of a run at W&B, downloaded below `folder`.

    Args:
        reference: `wandb:entity/project/run`, where `run` is the id at the end of the run's address; or
            `wandb:entity/project/artifact:alias`.

    Raises:
        ValueError: there is none, there is no key, or the server does not answer.
    """
    found = REFERENCE.fullmatch(reference)
    if found is None:
        raise ValueError(f"run={reference} must be wandb:ENTITY/PROJECT/RUN or wandb:ENTITY/PROJECT/ARTIFACT:ALIAS")
    entity, project, name, alias = found.groups()
    artifact = f"{entity}/{project}/{name}:{alias}" if alias else f"{entity}/{project}/model-{name}:best"
    import wandb

    host = urlparse(wandb.setup().settings.base_url).hostname or ""
    if not has_api_key(host):  # wandb would ask for one, and wait
        raise ValueError(f"run={reference} needs an account at {host}: wandb login")
    target = folder / artifact.replace(":", "-")
    try:
        wandb.Api().artifact(artifact, type="model").download(root=str(target))
    except (wandb.Error, ValueError, OSError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"run={reference}: the artifact {artifact} cannot be had: {line}") from error
    if not (target / BEST).is_file():
        raise ValueError(f"run={reference}: the artifact {artifact} holds no {BEST}")
    return target / BEST
