"""Continue a run with the configuration that it was started with, changed only where the command line says so."""

import sys
from pathlib import Path

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from minigpt.config.errors import ConfigError
from minigpt.runs.directory import CHECKPOINTS, CONFIG, find_run, step_checkpoints
from minigpt.runs.summary import read_summary


def continue_run(composed: DictConfig) -> DictConfig:
    """The saved configuration of the run that `resume` names, with this command line's options on top.

    The saved file is data: it passes the same checks as a command line before anything is built from it.

    Raises:
        ConfigError: the run does not exist, or an option would choose another part than the run was started with.
    """
    if not isinstance(composed.resume, str):
        raise ConfigError(f"resume={composed.resume} must be a run directory, latest or auto")
    runs_dir = Path(composed.paths.log_dir) / "runs"
    if composed.resume == "auto":
        directory = find_unfinished(composed.paths.run_dir, runs_dir)
        if directory is None:
            composed.resume = None
            return composed
    else:
        directory = find_run(composed.resume, runs_dir)
    # Processes for further devices read this command line again; `latest` must not be another run by then.
    sys.argv = [f"resume={directory}" if a.startswith("resume=") else a for a in sys.argv]
    try:
        saved = OmegaConf.load(directory / CONFIG)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{directory / CONFIG} is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(saved, DictConfig):
        raise ConfigError(f"{directory / CONFIG} is not a configuration")
    hydra = HydraConfig.get()
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
    return saved


def find_unfinished(run_dir: str | None, runs_dir: Path) -> Path | None:
    """What `resume=auto` goes on with: the run in `run_dir`, or the newest one, if it has begun and is not complete."""
    try:
        directory = find_run(run_dir or "latest", runs_dir)
    except ValueError:
        return None
    done = (read_summary(directory) or {}).get("status") == "completed"
    return None if done or not step_checkpoints(directory / CHECKPOINTS) else directory
