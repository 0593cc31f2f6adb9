"""Where metrics are written: a CSV file, Weights & Biases, TensorBoard."""

import csv
import html
import http.client
import netrc
import os
import secrets
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal
from urllib.parse import urlparse

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from minigpt.runs.directory import METRICS, is_rank_zero
from minigpt.runs.redaction import redact
from minigpt.runs.run import Run
from minigpt.runs.run_files import read_metrics, write_metrics

PROBE_TIMEOUT_S = 1.5  # for a server to answer at all
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
            records = read_metrics(self.path)  # none but for the first record of this process, or a new column
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


@contextmanager
def without_launch() -> Iterator[None]:
    """Keep `wandb.init` from importing W&B Launch, which takes a second, for inputs that nobody has staged."""
    name = "wandb.sdk.launch.inputs.internal"
    if name in sys.modules:  # something has used it
        yield
        return
    stand_in = ModuleType(name)
    vars(stand_in)["StagedLaunchInputs"] = lambda: SimpleNamespace(apply=lambda run: None)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]


def resolve_mode(mode: str) -> str:
    """online or offline for `auto`: online only with a key and a server that is_reachable soon.

    wandb itself would wait 90 seconds for a server that does not answer, and then fail the run.
    """
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    import wandb

    url = wandb.setup().settings.base_url
    if not has_api_key(urlparse(url).hostname or ""):
        return "offline"
    answer: list[bool] = []
    probe = threading.Thread(target=lambda: answer.append(is_reachable(url)), daemon=True)
    probe.start()
    probe.join(PROBE_TIMEOUT_S)  # a name look-up may take longer than any time-out of a connection
    return "online" if any(answer) else "offline"


def has_api_key(host: str) -> bool:
    """Whether there is a key for a W&B server. `wandb.login` knows too, but takes five seconds without a network."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    places = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    path = next((p for p in (Path(place).expanduser() for place in places if place) if p.is_file()), None)
    try:
        return path is not None and netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def is_reachable(url: str) -> bool:
    """Whether a web server is_reachable at all."""
    try:
        urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


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
