"""A Hydra launcher that gives every job of a sweep a process of its own.

Within one process the jobs of a sweep leak into each other: ranks and ports stay in the environment, and the processes
that Lightning starts for further devices would run the whole sweep again
(https://github.com/facebookresearch/hydra/issues/2070). Here a job is the command that one would type without -m, so it
works as it does alone, and one that fails does not end the others.
"""

import copy
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from hydra_plugins.job_lines import OUTPUT, JobLines, last_error, tail
from minigpt.bounds import PositiveInt
from minigpt.config.check import check
from minigpt.config.packaged import CONF
from minigpt.runs.labels import short_name
from minigpt.runs.ranking import read_job
from minigpt.runs.redaction import redact
from minigpt.runs.summary import write_summary

LOOK_EVERY_S = 0.5  # between two looks at what a job has printed


class ProcessLauncher(Launcher):
    """Runs `python src/train.py <overrides> paths.run_dir=<sweep>/<job>` for each job.

    Args:
        n_jobs: how many jobs run at the same time.
        show_output: print what the jobs print, instead of writing it to `output.log` in their directories.
    """

    def __init__(self, n_jobs: PositiveInt = 1, show_output: bool = False) -> None:
        self.n_jobs = n_jobs
        self.show_output = show_output
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.hydra_context = hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check all jobs first, then run them; the value of a job is its best loss, in bits per character."""
        assert self.config is not None and self.hydra_context is not None
        command = Path(sys.argv[0]).stem
        for overrides in job_overrides:
            job = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            HydraConfig.instance().set_config(job)
            own = copy.deepcopy(job)
            with read_write(own), open_dict(own):
                del own["hydra"]
            check(own, command)
        total = self.config.hydra.sweeper.get("n_trials") or initial_job_idx + len(job_overrides)
        lines = JobLines(total, is_live=not (self.show_output or self.config.get("quiet")))
        if job_overrides and not (initial_job_idx or self.show_output):
            lines.say(f"{total} jobs, each with an {OUTPUT} in {self.config.hydra.sweep.dir}")
        with lines, ThreadPoolExecutor(self.n_jobs) as pool:
            try:
                return list(pool.map(partial(self.run, lines), count(initial_job_idx), job_overrides))
            except KeyboardInterrupt:  # the jobs have the signal too; those that have not begun are cancelled
                lines.say("SIGINT: running jobs finish their step and save; Ctrl-C again ends without saving")
                raise

    def run(self, lines: JobLines, index: int, overrides: Sequence[str]) -> JobReturn:
        """One job, from its first line to its summary."""
        assert self.config is not None
        sweep_dir = Path(self.config.hydra.sweep.dir)
        directory = sweep_dir / str(index)
        own = [o for o in overrides if not o.startswith(("hydra.", "hydra/"))]
        command = [sys.executable, sys.argv[0], *self.flags(), *own, f"paths.run_dir={directory}"]
        typed = self.config.hydra.overrides.task  # for all jobs, but for those that name several values
        name = redact(short_name([o for o in own if o not in typed]) or f"job {index}")
        environment = {"WANDB_RUN_GROUP": sweep_dir.name, "WANDB_JOB_TYPE": "sweep"} | os.environ
        environment["WANDB_NAME"] = name
        if self.show_output:
            lines.say(f"[job {index}] {' '.join(own)}")
        task, begun = lines.begin(index, name), time.monotonic()
        code = self.execute(command, environment, directory / OUTPUT, lambda output: lines.update(task, output))
        missing = f"ended with exit code {code}"
        summary = read_job(directory, missing)
        if code > 128:  # 128 + signal
            summary["status"] = "interrupted"
        elif code:
            printed = last_error(tail(directory / OUTPUT))
            summary |= {"status": "failed", "error": printed or summary.get("error") or missing}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            write_summary(directory, {**summary, "overrides": own})
        except OSError as error:  # the ranking of the other jobs must not be lost for it
            print(f"[job {index}] its summary cannot be written: {error}", file=sys.stderr, flush=True)
        place = str(directory) if self.show_output else f"{index}/{OUTPUT}"
        lines.end(task, index, name, summary, time.monotonic() - begun, place)
        return JobReturn(
            overrides=list(overrides),
            status=JobStatus.COMPLETED,  # a failed job must not end the sweep; the ranking shows it
            _return_value=summary.get("val_bpc_best"),
        )

    def execute(self, command: list[str], environment: dict[str, str], log: Path, look: Callable[[str], None]) -> int:
        """Run a command to its end, with what it prints in a file, at the end of which `look` looks now and then.

        Returns its exit code.
        """
        with ExitStack() as stack:
            streams: dict[str, Any] = {}
            if not self.show_output:
                log.parent.mkdir(parents=True, exist_ok=True)
                streams = {"stdout": stack.enter_context(log.open("wb")), "stderr": subprocess.STDOUT}
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, **streams)
            while True:
                try:
                    return process.wait(LOOK_EVERY_S)
                except subprocess.TimeoutExpired:
                    look(tail(log))

    def flags(self) -> list[str]:
        """The flags of this command that say where configurations are read from."""
        assert self.config is not None
        hydra = self.config.hydra
        paths = {source.provider: source.path for source in hydra.runtime.config_sources if source.schema == "file"}
        flags = ["--config-name", hydra.job.config_name]
        flags += ["--config-path", paths["main"]] if Path(paths["main"]) != CONF else []
        return flags + (["--config-dir", paths["command-line"]] if "command-line" in paths else [])
