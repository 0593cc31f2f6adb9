"""Where metrics are written: a CSV file, Weights & Biases, TensorBoard."""

import csv
import html
import os
import secrets
import sys
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from minigpt.runs.directory import METRICS, is_rank_zero
from minigpt.runs.redaction import redact
from minigpt.runs.run import Run
from minigpt.runs.run_files import read_metrics, write_metrics
from minigpt.training.wandb_service import resolve_mode, without_launch

INIT_TIMEOUT_S = 1.5  # for wandb to begin a run, and to end it: what is not uploaded by then stays on the disk


class CSVLogger(Logger):
    """`metrics.csv`: one record per call, one column per metric, written at once. A resumed run continues it.

    Lightning's own logger deletes the file of a run that is resumed, and keeps a hundred records in memory.
    """

    def __init__(self, *, run: Run) -> None:
        super().__init__()
        self.path = (run.directory or Path(os.devnull)) / METRICS  # only rank 0 writes
        self.columns: list[str] = []

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has the configuration."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not is_rank_zero():
            return
        record = {"step": step, **metrics}
        if new := [name for name in record if name not in self.columns]:
            records = list(read_metrics(self.path))  # none but for the first record of this process, or a new column
            self.columns = list(dict.fromkeys((*(records[0] if records else ()), *self.columns, *new)))
            write_metrics(self.path, self.columns, records)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(record)


class WandB(Logger):
    """Weights & Biases, online only when that can work, so that a run never waits for it.

    Lightning's own passes an option that wandb warns of, and its `offline=True` changes the whole process.

    Args:
        run: what is logged; the W&B run has the name of its directory, and continues the one that it resumes.
        mode: auto (online when a key exists and the server is_reachable), online, offline or disabled.
        project: the project's name there.
        save_dir: where the offline files of all runs lie side by side.
        group, job_type, tags: as in `wandb.init`; when None, its environment variables count.
    """

    def __init__(
        self,
        *,
        run: Run,
        mode: Literal["auto", "online", "offline", "disabled"],
        project: str,
        save_dir: str,
        group: str | None = None,
        job_type: str | None = None,
    ) -> None:
        super().__init__()
        if set(project) & set("/\\#?%:"):
            raise ValueError(f"logger.wandb.project={project!r} must have none of / \\ # ? % :")
        # wandb has no setting for this. It would stage artifacts in the home directory, where a copied run misses them.
        os.environ.setdefault("WANDB_DATA_DIR", str(Path(save_dir).absolute()))
        self.mode = resolve_mode(mode) if is_rank_zero() else "disabled"
        self.wandb_run: Any = None
        self._options = {
            "project": project,
            "dir": save_dir,
            "name": run.directory.name if run.directory is not None else None,
            "config": redact(run.config),
            "id": run.previous_summary.get("wandb_id") or secrets.token_hex(4),
            "group": group,
            "job_type": job_type,
            "tags": run.config.get("tags") or None,
        }

    @property
    def name(self) -> str:
        return str(self._options["project"])

    @property
    def version(self) -> str:
        """The id of the run, which continuing it needs; it is known before the run begins."""
        return str(self._options["id"])

    @property
    def folder(self) -> str | None:
        """Where this run's files lie, relative to here if below: what `wandb sync` and `wandb leet` take."""
        if self.wandb_run is None or self.mode == "disabled":
            return None
        folder = Path(self.wandb_run.dir).parent
        return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)

    def start(self) -> None:
        """Begin or continue the run; metrics are plotted over the optimizer step."""
        import wandb  # a third of a second that other loggers do not need

        Path(self._options["dir"]).mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            console="off",
            silent=True,
            init_timeout=INIT_TIMEOUT_S,
            finish_timeout=INIT_TIMEOUT_S,
            x_disable_meta=redact(sys.argv) != sys.argv,  # the metadata has the command line, and it has a secret
        )
        begin = partial(
            wandb.init, resume="allow", reinit="finish_previous", settings=settings, **redact(self._options)
        )
        with without_launch():
            try:
                self.wandb_run = begin(mode=self.mode)
            except wandb.Error:
                self.mode = "offline"
                wandb.teardown()  # its service still holds the run; this takes as long again
                print("W&B does not answer: this run is logged offline", file=sys.stderr)
                self.wandb_run = begin(mode=self.mode)
        self.wandb_run.define_metric("step")
        self.wandb_run.define_metric("*", step_metric="step")
        self.wandb_run.define_metric("val/loss", step_metric="step", summary="min")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: `start` has passed the configuration."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if not is_rank_zero():
            return
        if self.wandb_run is None:
            self.start()
        assert self.wandb_run is not None
        self.wandb_run.log({**metrics, "step": step})

    def finish(self, exit_code: int) -> None:
        """Close the run here: left open, the next run of this process would go on in it."""
        if self.wandb_run is not None:
            self.wandb_run.finish(exit_code=exit_code)


class TensorBoard(TensorBoardLogger):
    """TensorBoard's event files in the run directory's `tensorboard/`."""

    def __init__(self, *, run: Run) -> None:
        if find_spec("tensorboard") is None:
            raise ValueError('TensorBoard is not installed: pip install -c constraints.txt -e ".[tensorboard]"')
        super().__init__(str(run.directory or ""), name="", version="tensorboard")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has the configuration."""

    def save(self) -> None:
        if is_rank_zero():
            self.experiment.flush()


def log_text(logger: Logger, name: str, text: str, step: int) -> None:
    """Hand a text to a logger that can show it."""
    if isinstance(logger, WandB):
        import wandb

        logger.log_metrics({name: wandb.Html(f"<pre>{html.escape(text)}</pre>")}, step)
    elif isinstance(logger, TensorBoard):
        logger.experiment.add_text(name, text, step)
