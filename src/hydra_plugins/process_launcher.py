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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from minigpt.bounds import PositiveInt
from minigpt.config.check import check
from minigpt.config.packaged import CONF
from minigpt.runs.labels import short_name
from minigpt.runs.ranking import read_job
from minigpt.runs.redaction import redact
from minigpt.runs.summary import write_summary


class ProcessLauncher(Launcher):
    """Runs `python src/train.py <overrides> paths.run_dir=<sweep>/<job>` for each job.

    Args:
        n_jobs: how many jobs run at the same time.
    """

    def __init__(self, n_jobs: PositiveInt = 1) -> None:
        self.n_jobs = n_jobs
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
        jobs = list(enumerate(job_overrides, start=initial_job_idx))
        with ThreadPoolExecutor(self.n_jobs) as pool:
            return list(pool.map(lambda job: self.run(*job), jobs))

    def run(self, index: int, overrides: Sequence[str]) -> JobReturn:
        """One job, from its first line to its summary."""
        assert self.config is not None
        sweep_dir = Path(self.config.hydra.sweep.dir)
        directory = sweep_dir / str(index)
        own = [o for o in overrides if not o.startswith(("hydra.", "hydra/"))]
        print(f"[job {index}] {' '.join(own)}", flush=True)
        command = [sys.executable, sys.argv[0], *self.flags(), *own, f"paths.run_dir={directory}"]
        typed = self.config.hydra.overrides.task  # for all jobs, but for those that name several values
        name = short_name([o for o in own if o not in typed]) or f"job {index}"
        environment = {"WANDB_RUN_GROUP": sweep_dir.name, "WANDB_JOB_TYPE": "sweep"} | os.environ
        environment["WANDB_NAME"] = redact(name)
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False)
        summary = read_job(directory, missing=f"ended with exit code {done.returncode}")
        if done.returncode:
            summary["status"] = "interrupted" if done.returncode > 128 else "failed"  # 128 + signal
        try:
            directory.mkdir(parents=True, exist_ok=True)
            write_summary(directory, {**summary, "overrides": own})
        except OSError as error:  # the ranking of the other jobs must not be lost for it
            print(f"[job {index}] its summary cannot be written: {error}", file=sys.stderr, flush=True)
        return JobReturn(
            overrides=list(overrides),
            status=JobStatus.COMPLETED,  # a failed job must not end the sweep; the ranking shows it
            _return_value=summary.get("val_bpc_best"),
        )

    def flags(self) -> list[str]:
        """The flags of this command that say where configurations are read from."""
        assert self.config is not None
        hydra = self.config.hydra
        paths = {source.provider: source.path for source in hydra.runtime.config_sources if source.schema == "file"}
        flags = ["--config-name", hydra.job.config_name]
        flags += ["--config-path", paths["main"]] if Path(paths["main"]) != CONF else []
        return flags + (["--config-dir", paths["command-line"]] if "command-line" in paths else [])
