"""What the commands share: compose the configuration, check it, run; one line for a user's mistake, and exit codes.

`python src/train.py` calls `main(config)` of src/train.py with the checked configuration as plain data. The exit codes:

    0    finished, or the reader of the output has closed the pipe, as `head` does
    1    failed
    2    a mistake on the command line or in a file that it names: one line on standard error, nothing begun
    130  SIGINT      143  SIGTERM      129  SIGHUP (a closed terminal)
    141  a training whose output was closed      138  SIGUSR1 in a Slurm job (see `minigpt.training.fit`)
"""

import argparse
import os
import secrets
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, cast, get_type_hints

from hydra import version

# Private: Hydra has no public way to look at its command line before it acts on it. tests/test_cli.py notices a change.
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from minigpt.config.check import check
from minigpt.config.errors import ConfigError, explain, explain_flags
from minigpt.config.initial import merge_initial
from minigpt.config.packaged import CONF, config_groups
from minigpt.config.saved import merge_saved
from minigpt.config.schema import COMMANDS
from minigpt.config.text_options import quote_text_options
from minigpt.deferred_imports import defer_imports
from minigpt.runs.commands import program
from minigpt.runs.directory import CONFIG, is_rank_zero
from minigpt.runs.resume import select_run
from minigpt.runs.summary import is_complete, read_summary
from minigpt.startup import StartNotice, limit_spinning
from minigpt.streams import discard, guard

USAGE, INTERRUPTED = 2, 130
SWEEP_OPTIONS = ("hydra.sweep", "hydra/sweep", "hydra.launcher", "hydra/launcher")

OmegaConf.register_new_resolver("random", lambda: secrets.token_hex(3), use_cache=True, replace=True)
OmegaConf.register_new_resolver("text_name", lambda _root_: text_name(_root_), replace=True)


def command(name: str, *, uses_torch: bool = True) -> Callable[[Callable[[dict[str, Any]], Any]], Callable[[], None]]:
    """Make `main(config)` the command of conf/<name>.yaml.

    `main` may raise ValueError for what it finds wrong with its input before it has begun; later errors must not reach
    this far as ValueError (`minigpt.training.fit` sees to it). A command that does without torch starts seconds sooner.
    """

    def decorate(main: Callable[[dict[str, Any]], Any]) -> Callable[[], None]:
        notice = StartNotice()

        def task(composed: DictConfig) -> Any:
            if HydraConfig.get().mode != RunMode.MULTIRUN:  # the jobs of a sweep are processes of their own
                exit_on_signals()
            try:
                config = prepare(composed, name)
                if uses_torch:
                    defer_imports()
                notice.clear()
                return main(config)
            except BrokenPipeError:
                end_quietly()
            except (ValueError, OSError, OmegaConfBaseException, HydraException) as error:
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    raise  # a launcher that runs jobs within this process goes on with the next one
                notice.clear()
                refuse(error)
            except Exception:
                traceback.print_exc()
                sys.exit(1)

        task.__module__ = main.__module__  # Hydra names the job after the file of its task

        return partial(run_command, name, task, notice)

    return decorate


def run_command(name: str, task: Callable[[DictConfig], Any], notice: StartNotice) -> None:
    """Compose the configuration of this command line and run the task with it; exit with the command's code."""
    limit_spinning()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them at length
    OmegaConf.register_new_resolver("help", lambda: describe_command(name), replace=True)
    if isinstance(sys.stdout, TextIOWrapper):  # a pipe on Windows has its code page, and a text may have more
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.path.append(str(Path.cwd()))  # a typed `_target_` may stand in a file of the current directory
    folders = [CONF]
    with redirect_stderr(guard(sys.stderr)), redirect_stdout(sys.stdout or guard(None)):
        notice.show()
        try:
            run_hydra(task, name, folders)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            end_quietly()
        except Exception as error:  # Hydra raises many kinds for a command line that it cannot compose
            notice.clear()
            refuse(error, folders)
        finally:
            notice.clear()


def run_hydra(task: Callable[[DictConfig], Any], name: str, folders: list[Path]) -> None:
    """Compose conf/<name>.yaml and call `task` with it, as `hydra.main` does; `--config-dir` is added to `folders`."""
    flags = parse_command_line()
    folders += [Path(flags.config_dir)] if flags.config_dir else []
    version.setbase("1.3")
    _run_hydra(flags, get_args_parser(), task, config_path=str(CONF), config_name=name)


def prepare(composed: DictConfig, name: str) -> dict[str, Any]:
    """The checked configuration of a command, as plain data; that of the run that is resumed, if one is.

    Raises:
        ConfigError: for the first thing in it that cannot be used.
    """
    refuse_several(composed)
    refuse_sweep_options()
    if name != "train":
        return check(composed, name)
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN and composed.paths.run_dir is None:
        composed.paths.run_dir = hydra_config.runtime.output_dir  # a launcher that runs jobs within this process
    resume, run_dir = composed.resume, composed.paths.run_dir
    if not isinstance(resume, str | None) or not isinstance(run_dir, str | None):
        return check(composed, name)  # which says what is wrong with it
    overrides = list(hydra_config.overrides.task)
    if resume is not None and not is_rank_zero() and hydra_config.run.dir != ".":
        resume = hydra_config.run.dir  # of the process that started this one, see below
    directory = select_run(resume, run_dir, Path(str(composed.paths.runs_dir)), overrides)
    composed.resume = None if directory is None else str(directory)
    if directory is None:
        return check(merge_initial(composed), name)
    # Lightning starts the processes of further devices with this command line and this value of hydra.run.dir: they
    # must resume the same run, and `latest` may be another one by then.
    own = cast("DictConfig", hydra_config)  # Hydra annotates its fields, not the container
    with read_write(own):
        own.run.dir = str(directory)
    summary = read_summary(directory) or {}
    merged = merge_saved(directory / CONFIG, composed, summary.get("overrides", []))
    merged.resume = merged.paths.run_dir = str(directory)
    config = check(merged, name)
    if resume == "auto" and is_complete(summary, config["trainer"]["max_steps"]):
        print(f"{directory} is complete: nothing to do")
        sys.exit(0)
    return config


def parse_command_line() -> argparse.Namespace:
    """The flags and overrides of this process, with texts and paths as they were typed, see `quote_text_options`.

    Raises:
        ConfigError: for flags that Hydra does not know or that do harm. Hydra's own parser would print its whole usage.
    """
    parser = get_args_parser()
    parser.error = raise_config_error  # of this parser alone
    flags, unknown = parser.parse_known_args()
    if unknown:
        raise ConfigError(explain_flags(unknown))
    if flags.experimental_rerun:
        raise ConfigError("--experimental-rerun unpickles a file, which may run anything: repeat the command instead")
    flags.overrides = quote_text_options(flags.overrides, flags.multirun)
    return flags


def raise_config_error(message: str) -> NoReturn:
    """What argparse calls for a mistake."""
    raise ConfigError(message)


def text_name(config: DictConfig) -> str:
    """What a run's name says of its text: the name of a text of one's own, else the choice of the group `data`."""
    path = OmegaConf.select(config, "data.path")
    return Path(path).stem[:40] if isinstance(path, str) else str(HydraConfig.get().runtime.choices["data"])


def refuse_several(composed: DictConfig) -> None:
    """Raises ConfigError for `group=[a,b]` of a group that holds one component: Hydra would mix the options of both."""
    for override in HydraConfig.get().overrides.task:
        group, _, choice = override.partition("=")
        if choice.startswith("[") and group in config_groups():
            node = OmegaConf.select(composed, group.replace("/", "."))
            if isinstance(node, DictConfig) and "_target_" in node:
                raise ConfigError(f"{override}: choose one of them, {group} is a single component")


def exit_on_signals() -> None:
    """Let SIGTERM and SIGHUP end this process as SIGINT does, so that it tidies up; `nohup` has SIGHUP ignored."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda number, frame: sys.exit(128 + number))


def refuse_sweep_options() -> None:
    """Raises ConfigError for typed options that only a sweep heeds, when this is none."""
    hydra_config = HydraConfig.get()
    for override in [*hydra_config.overrides.hydra, *hydra_config.overrides.task]:
        key, _, value = override.lstrip("+").partition("=")
        is_search = key == "hparams_search" and value != "null"
        if hydra_config.mode == RunMode.RUN and (is_search or key.startswith(SWEEP_OPTIONS)):
            raise ConfigError(f"{override} is for a sweep: add -m")


def end_quietly() -> NoReturn:
    """Exit when the reader of our output has closed it, as `head` does."""
    discard(sys.stdout)
    sys.exit(0)


def refuse(error: Exception, folders: Sequence[Path] = (CONF,)) -> NoReturn:
    """Print one line that says what is wrong, and exit; `folders` are those of the configuration."""
    print(f"error: {explain(error, folders)}", file=sys.stderr)
    sys.exit(USAGE)


def describe_command(command: str) -> str:
    """The text of `--help`: usage, a line for each of the command's own options, and the choices of its groups."""
    schema = COMMANDS[command]
    hints = get_type_hints(schema, include_extras=True)
    width = max(map(len, hints)) + 2
    return "\n".join(
        (
            f"{schema.__doc__}\n",
            f"{program(command)} [GROUP=CHOICE ...] [OPTION=VALUE ...] [-m for a sweep]\n",
            "Options:",
            *(f"  {name:{width}}{hint.__metadata__[-1].documentation}" for name, hint in hints.items()),
            "\nGroups:",
            *(
                textwrap.fill(f"{group}={' | '.join(choices)}", 80, initial_indent="  ", subsequent_indent=" " * 6)
                for group, choices in config_groups(command).items()
            ),
        )
    )
