"""Weights & Biases: what a run writes there, and how it continues a run that was interrupted."""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger

from minigpt.runs.directory import METRICS, is_rank_zero
from minigpt.runs.labels import readable_config, short_name
from minigpt.runs.redaction import redact
from minigpt.runs.run import Run
from minigpt.runs.run_files import read_metrics
from minigpt.training.wandb_files import upload_log, upload_model
from minigpt.training.wandb_service import (
    describe_refusal,
    last_local_step,
    resolve_mode,
    say,
    usable_mode,
    wandb_settings,
    without_launch,
)

SLOW_S = 2  # a table asks the server something; one that takes longer to answer gets no more tables
SAMPLE_COLUMNS: list[int | str] = ["step", "prompt", "text", "mean log-probability"]


class WandB(Logger):
    """Weights & Biases, online only when that can work, so that a run never waits for it.

    Lightning's own passes an option that wandb warns of, and its `offline=True` changes the whole process.
    One row of the history has all metrics of an optimizer step. A resumed run adds the rows that its W&B run lacks,
    from metrics.csv, and none twice.

    Args:
        run: what is logged; the W&B run is named after its overrides, and continues the one that it resumes.
        mode: auto (online when a key exists and the server is_reachable), online, offline or disabled.
        project: the project's name there.
        save_dir: where the offline files of all runs lie side by side.
        entity, group, job_type, notes: as in `wandb.init`; when None, its environment variables count.
        tags: words to find the run by.
        log_model: at the end, upload the best checkpoint as an artifact with the aliases `best` and `latest`; the end
            of the run then waits for it, up to two minutes.
    """

    def __init__(
        self,
        *,
        run: Run,
        mode: Literal["auto", "online", "offline", "disabled"],
        project: str,
        save_dir: str,
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
        log_model: bool = False,
    ) -> None:
        super().__init__()
        if set(project) & set("/\\#?%:"):
            raise ValueError(f"logger.wandb.project={project!r} must have none of / \\ # ? % :")
        # wandb has no settings for these: where artifacts are staged (in the home directory, where a copied run misses
        # them), how long a table waits for the server, its own error reports, which delay an end without a network, and
        # a line about the key.
        os.environ.setdefault("WANDB_DATA_DIR", str(Path(save_dir).absolute()))
        os.environ.setdefault("WANDB_HTTP_TIMEOUT", str(SLOW_S))
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        self.mode = resolve_mode(mode) if is_rank_zero() else "disabled"
        self.wandb_run: Any = None
        self._run = run
        self._row: dict[str, Any] = {}  # of the newest step; it is sent when it is complete
        self._logged = -1  # the last step that the W&B run has
        self._samples: Any = None
        self._takes_samples = True
        self._log_model = log_model
        self._options = {
            "project": project,
            "dir": str(Path(save_dir).absolute()),  # a wandb service that is running already has another directory
            "entity": entity,
            "name": run.previous_summary.get("wandb_name")
            or os.environ.get("WANDB_NAME")
            or short_name(run.overrides)
            or (run.directory and run.directory.name),
            "config": redact(readable_config(run.config, run.choices)),
            # A sweep's agent gives a run its id.
            "id": run.previous_summary.get("wandb_id") or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4),
            "group": group,
            "job_type": job_type,
            "tags": tags or None,
            "notes": notes,
        }

    @property
    def name(self) -> str:
        return str(self._options["project"])

    @property
    def version(self) -> str:
        """The id of the run, which continuing it needs; it is known before the run begins."""
        return str(self._options["id"])

    @property
    def known(self) -> dict[str, Any]:
        """What summary.json keeps, so that a resumed run continues this one."""
        return {"wandb_id": self.version, "wandb_name": self._options["name"]}

    @property
    def folder(self) -> str | None:
        """Where this run's files lie, relative to here if below: what `wandb sync` and `wandb leet` take."""
        if self.wandb_run is None or self.mode == "disabled":
            return None
        folder = Path(self.wandb_run.dir).parent
        return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)

    def start(self, **figures: Any) -> None:
        """Begin or continue the run; metrics are plotted over the optimizer step.

        Args:
            figures: of the summary, known before the training.
        """
        import wandb  # a third of a second that other loggers do not need

        self.mode = usable_mode(self.mode, Path(self._options["dir"]))
        begin = partial(wandb.init, resume="allow", reinit="finish_previous", **redact(self._options))
        with without_launch():
            try:
                self.wandb_run = begin(mode=self.mode, settings=wandb_settings(self.mode, self._log_model))
            except wandb.Error as error:
                self.mode = "offline"
                wandb.teardown()  # its service still holds the run; this takes as long again
                say(f"{describe_refusal(error)}: this run is logged offline")
                self.wandb_run = begin(mode=self.mode, settings=wandb_settings(self.mode))
        self.wandb_run.define_metric("step", hidden=True)
        self.wandb_run.define_metric("*", step_metric="step")
        self.wandb_run.define_metric("val/loss", step_metric="step", summary="min")
        self.summarize(figures)
        if self._run.previous_summary.get("wandb_id") is not None:
            self.catch_up()

    def catch_up(self) -> None:
        """Add the steps of a resumed run that its W&B run lacks, because it was killed before they were sent."""
        if self.wandb_run.resumed:
            step = self.wandb_run.summary.get("step")
            self._logged = step if isinstance(step, int) else -1
        elif self.mode == "offline":
            self._logged = last_local_step(Path(self._options["dir"]), self.version)
        assert self._run.directory is not None
        for record in read_metrics(self._run.directory / METRICS):
            with contextlib.suppress(ValueError):  # the file may hold anything
                metrics = {name: float(value) for name, value in record.items() if value and name != "step"}
                self.log_metrics(metrics, int(record["step"]))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: `start` has passed the configuration."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if not is_rank_zero():
            return
        if self.wandb_run is None:
            self.start()
        newest: int = self._row.get("step", self._logged + 1)
        step = newest if step is None else step
        if step <= self._logged:
            return
        if step != newest:
            self.save()
        self._row |= {**metrics, "step": step}

    def log_sample(self, step: int, prompt: str, text: str, log_probability: float | None) -> None:
        """Add a row to the table of samples."""
        if not is_rank_zero() or not self._takes_samples or step <= self._logged:
            return
        import wandb

        if self.mode == "online":
            import wandb.apis.public  # now, so that it is not a part of how long the server takes

        if self._samples is None:
            self._samples = wandb.Table(columns=SAMPLE_COLUMNS, log_mode="INCREMENTAL")
        self._samples.add_data(step, prompt, text, log_probability)
        self.log_metrics({"samples": self._samples}, step)

    def log_media(self, name: str, media: Callable[[], Any], step: int) -> None:
        """Add what a function of no arguments makes of wandb's types, such as an image, to the row of a step."""
        if is_rank_zero() and step > self._logged:
            self.attempt(lambda: self.log_metrics({name: media()}, step))

    def save(self) -> None:
        """Send the row of the newest step, which is complete."""
        row, self._row = self._row, {}
        if not row:
            return
        self._logged = row["step"]
        send = partial(self.wandb_run.log, row, step=row["step"], commit=True)
        if "samples" not in row:
            self.attempt(send)
            return
        begun = time.monotonic()
        try:
            send()
        except Exception:
            self._takes_samples = False
            del row["samples"]
            self.attempt(send)
        if not self._takes_samples or (self.mode == "online" and time.monotonic() - begun > SLOW_S):
            self._takes_samples = False
            say("takes no more samples: they are in samples.md alone")

    def summarize(self, figures: Mapping[str, Any]) -> None:
        """Put figures of the whole run into its summary, those without a value left out."""
        present = {name: redact(value) for name, value in figures.items() if value is not None}
        self.attempt(lambda: self.wandb_run.summary.update(present))

    def finish(self, exit_code: int) -> None:
        """Close the run here: left open, the next run of this process would go on in it.

        W&B calls a run with another exit code than 0 failed. One that a signal ended can be continued, as one that was
        preempted can, and that is what it is called.
        """
        if self.wandb_run is None:
            return
        self.save()
        if self.mode != "disabled":
            assert self._run.directory is not None
            self.attempt(partial(upload_log, self.wandb_run, self._run.directory))
            if self._log_model:
                self.attempt(partial(upload_model, self.wandb_run, self._run.directory, self.mode == "offline"))
        if exit_code > 128:
            self.attempt(self.wandb_run.mark_preempting)
        try:
            self.wandb_run.finish(exit_code=exit_code)
        except TimeoutError:
            say(f"did not take everything in time: wandb sync {self.folder}")
        except Exception as error:
            say(f"failed: {error}")

    def attempt(self, action: Callable[[], Any]) -> None:
        """Do something of which a training must not fail: a server may say anything."""
        try:
            action()
        except Exception as error:
            say(f"failed ({type(error).__name__}): metrics.csv has everything")
