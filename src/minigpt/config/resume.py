"""Continue a run with the configuration that it was started with, changed only where the command line says so."""

import sys
from pathlib import Path

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from minigpt.config.checks import leaves
from minigpt.config.errors import ConfigError
from minigpt.runs.directory import CHECKPOINTS, CONFIG, find_run, step_checkpoints
from minigpt.runs.slurm import requeued_run
from minigpt.runs.summary import read_summary


def continue_run(composed: DictConfig) -> DictConfig:
    """The saved configuration of the run that `resume` names, with this command line's options on top.

    The saved file is data: it passes the same checks as a command line before anything is built from it.

    Raises:
        ConfigError: the run does not exist, or an option would choose another part than the run was started with.
    """
    hydra = HydraConfig.get()
    runs_dir = Path(str(composed.paths.log_dir)) / "runs"
    if composed.resume is None:
        directory = requeued_run(runs_dir, list(hydra.overrides.task))
        if directory is None:
            return composed
        composed.resume = str(directory)
    if not isinstance(composed.resume, str):
        raise ConfigError(f"resume={composed.resume} must be a run directory, latest or auto")
    auto = composed.resume == "auto"
    if auto:
        named = composed.paths.run_dir
        directory = find_unfinished(None if named is None else str(named), runs_dir)
        if directory is None:
            composed.resume = None
            return composed
    else:
        directory = find_run(composed.resume, runs_dir)
    # Processes for further devices read this command line again; `latest` must not be another run by then.
    sys.argv = [f"resume={directory}" if a.startswith("resume=") else a for a in sys.argv]
    saved = read_saved(directory / CONFIG)
    keep_own_places(saved, composed)
    known = (read_summary(directory) or {}).get("overrides", [])
    for override in OverridesParser.create().parse_overrides(list(hydra.overrides.task)):
        key = override.key_or_group
        if key in hydra.runtime.choices:
            if override.input_line in known:
                continue  # repeating a choice that the run was started with changes nothing
            raise ConfigError(
                f"resume continues a run with its own {key}: leave {override.input_line} out, or start a new run"
            )
        with open_dict(saved):
            OmegaConf.update(saved, key, override.value(), force_add=True)
    saved.resume = saved.paths.run_dir = str(directory)
    if auto and is_complete(directory, int(saved.trainer.max_steps)):
        print(f"{directory} is complete: nothing to do")
        sys.exit(0)
    return saved


def read_saved(path: Path) -> DictConfig:
    """A run's saved configuration, as the plain data that it is: it may be anybody's.

    Raises:
        ConfigError: the file is damaged, or has more in it than values.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if "${" in text:  # would read this machine's environment
            raise ConfigError(f"{path} refers to other values; a saved configuration holds values alone")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ConfigError(f"{path} has YAML aliases, which can make a small file very large")
        saved = OmegaConf.create(yaml.safe_load(text) or {})
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(saved, DictConfig):
        raise ConfigError(f"{path} is not a configuration")
    return saved


def keep_own_places(saved: DictConfig, composed: DictConfig) -> None:
    """Where to read, write and download is this command's choice, not the saved file's.

    Raises:
        ConfigError: the saved file names a folder that this command has no own choice for.
    """
    own = {}
    for path, value in leaves(OmegaConf.to_container(composed, resolve=False)):
        if isinstance(value, str) and "${paths." in value:
            own[path.rpartition(".")[2]] = value
    saved.paths = composed.paths
    for path, value in list(leaves(OmegaConf.to_container(saved, resolve=False))):
        name = path.rpartition(".")[2]
        if name.endswith("dir") and not path.startswith("paths."):
            if name not in own:
                raise ConfigError(f"{path}={value} of the saved configuration is not honoured: set it here, or drop it")
            OmegaConf.update(saved, path, own[name])
        elif name == "url" and value not in (None, OmegaConf.select(composed, path)):
            OmegaConf.update(saved, path, None)


def find_unfinished(run_dir: str | None, runs_dir: Path) -> Path | None:
    """What `resume=auto` goes on with: the run in `run_dir`, or the newest one if that is not complete."""
    try:
        directory = find_run(run_dir or "latest", runs_dir)
    except ValueError:
        return None
    if not step_checkpoints(directory / CHECKPOINTS) or (run_dir is None and is_complete(directory)):
        return None
    return directory


def is_complete(directory: Path, max_steps: int = 0) -> bool:
    """Whether a run came to its end, and that was at `max_steps` or later."""
    summary = read_summary(directory) or {}
    return summary.get("status") == "completed" and summary.get("steps", 0) >= max_steps
