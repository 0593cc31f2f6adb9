"""What the doors share: compose, check, run; mistakes are one line on standard error and exit code 2."""

import argparse
import os
import secrets
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from minigpt.config.checks import check
from minigpt.config.conf import CONF, groups
from minigpt.config.errors import ConfigError, explain
from minigpt.config.resume import continue_run

USAGE, INTERRUPTED = 2, 130  # exit codes
# The options of Hydra that cannot make it build anything; the last three are how Lightning starts further processes.
HYDRA_OPTIONS = ("hydra.launcher.n_jobs", "hydra.sweep.", "hydra.sweeper.", "hydra.run.dir", "hydra.job.name")
HYDRA_OPTIONS += ("hydra.output_subdir",)

OmegaConf.register_new_resolver("random", lambda: secrets.token_hex(3), use_cache=True, replace=True)


def door(name: str) -> Callable[[Callable[[dict[str, Any]], Any]], Callable[[], None]]:
    """Make `main(config)` a command: it gets the configuration of conf/<name>.yaml as checked plain data.

    `main` may raise ValueError for what it finds wrong with its input before it has begun; later errors must not
    reach this far as ValueError (`minigpt.training.fit` sees to it).
    """

    def decorate(main: Callable[[dict[str, Any]], Any]) -> Callable[[], None]:
        def task(composed: DictConfig) -> Any:
            try:
                refuse_deletions()
                refuse_several(composed)
                if name == "train":
                    composed = continue_run(composed)
                return main(check(composed, name))
            except BrokenPipeError:  # whoever reads what we print has left, as `head` does
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(0)
            except (ValueError, OSError, OmegaConfBaseException, HydraException) as error:
                refuse(error)
            except Exception:
                traceback.print_exc()
                sys.exit(1)

        task.__module__ = main.__module__  # Hydra names the job after the file of its task

        def command() -> None:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors come to us instead of being printed at length
            argparse.ArgumentParser.error = lambda parser, message: refuse(ValueError(message))  # type: ignore
            try:
                refuse_other_configurations()
                hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(task)()
            except KeyboardInterrupt:
                sys.exit(INTERRUPTED)
            except Exception as error:  # Hydra raises many kinds for a command line that it cannot compose
                refuse(error)

        return command

    return decorate


def refuse_other_configurations() -> None:
    """Nothing but conf/ is composed, and nothing of Hydra's own that could build or unpickle things is changed.

    Raises:
        ConfigError: for an option that would.
    """
    options = vars(get_args_parser().parse_known_args()[0])
    for flag in ("config_path", "config_name", "config_dir", "experimental_rerun"):
        if options.get(flag):
            raise ConfigError(f"--{flag.replace('_', '-')} is not taken: add a file to conf/, such as an experiment")
    for override in options["overrides"]:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        own = key == "hydra" or key.startswith("hydra.")
        if own and ("_target_" in override or not key.startswith(HYDRA_OPTIONS)):
            raise ConfigError(f"{key} cannot be set: of Hydra's own options there are {', '.join(HYDRA_OPTIONS[:3])}")


def refuse_deletions() -> None:
    """Raises ConfigError for `~option`: nothing can be built without its options."""
    for override in HydraConfig.get().overrides.task:
        if override.startswith("~") and not override.startswith(("~callbacks.", "~logger.")):
            raise ConfigError(f"{override}: an option cannot be left out; choose or set another value")


def refuse_several(composed: DictConfig) -> None:
    """Raises ConfigError for `group=[a,b]` where there can be one part alone: Hydra would mix the options of both."""
    for override in HydraConfig.get().overrides.task:
        group, _, choice = override.partition("=")
        if choice.startswith("[") and group in groups():
            node = OmegaConf.select(composed, group.replace("/", "."))
            if isinstance(node, DictConfig) and "_target_" in node:
                raise ConfigError(f"{override}: choose one of them, {group} is a single part")


def refuse(error: Exception) -> NoReturn:
    """Say what is wrong and leave."""
    print(f"error: {explain(error)}", file=sys.stderr)
    sys.exit(USAGE)
