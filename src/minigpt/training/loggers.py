"""Where metrics go: a CSV file always, and Weights & Biases or TensorBoard beside it."""

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
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from minigpt.runs.directory import is_rank_zero
from minigpt.runs.redaction import redact
from minigpt.runs.run import Run

PROBE_S = 1.5  # that a server has to show that it is there
PATIENCE_S = 1.5  # that wandb may take to begin a run, and to end it: what is not uploaded by then lies on the disk


class CSVLogger(Logger):
    """`metrics.csv`: a row a call, a column a metric, each row on the disk at once. A resumed run goes on in it.

    Lightning's own deletes the file of a run that is continued, and keeps a hundred rows in memory.
    """

    def __init__(self, *, run: Run) -> None:
        super().__init__()
        self.path = (run.directory or Path(os.devnull)) / "metrics.csv"  # only rank 0 writes
        self.columns: list[str] = []
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                self.columns = next(csv.reader(file), [])

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration stands in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step, **metrics}
        new = [name for name in row if name not in self.columns]
        if new:
            self.rewrite([*self.columns, *new], self.rows())
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Drop the rows after `step`: a resumed run will write them again."""
        if self.columns:
            self.rewrite(self.columns, [row for row in self.rows() if int(row["step"]) <= step])

    def rows(self) -> list[dict[str, str]]:
        """What is in the file, as text."""
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8")
        return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))  # a power cut may leave half a row

    def rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        """Replace the file, whole."""
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self.path)
        self.columns = columns


class WandB(Logger):
    """Weights & Biases, online only when that can work, so that a run never waits for it.

    Lightning's own passes an option that wandb warns of, and its `offline=True` changes the whole process.

    Args:
        run: what is logged; the W&B run has the name of its directory, and continues the one that it resumes.
        mode: auto (online when a key exists and the server answers), online, offline or disabled.
        project: the project's name there.
        save_dir: where the offline files of all runs lie side by side.
        group, job_type, tags: as in `wandb.init`; when None, its environment variables count.
    """

    def __init__(
        self,
        *,
        run: Run,
        mode: str,
        project: str,
        save_dir: str,
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | None = None,
    ) -> None:
        super().__init__()
        # Without this wandb stages artifact files under the home directory, where a copied run would miss them.
        os.environ.setdefault("WANDB_DATA_DIR", str(Path(save_dir).absolute()))
        self.mode = resolve_mode(mode) if is_rank_zero() else "disabled"
        self.wandb_run: Any = None
        self._options = {
            "project": project,
            "dir": save_dir,
            "name": run.directory.name if run.directory is not None else None,
            "config": redact(run.config),
            "id": run.earlier.get("wandb_id") or secrets.token_hex(4),
            "group": group,
            "job_type": job_type,
            "tags": tags,
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
        """Where this run's files lie, relative to here: what `wandb sync` and `wandb leet` take."""
        if self.wandb_run is None or self.mode == "disabled":
            return None
        return os.path.relpath(Path(self.wandb_run.dir).parent)

    def start(self) -> None:
        """Begin or continue the run; metrics are plotted over the optimizer step."""
        import wandb  # a third of a second that other loggers do not need

        Path(self._options["dir"]).mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(console="off", silent=True, init_timeout=PATIENCE_S, finish_timeout=PATIENCE_S)
        begin = partial(
            wandb.init, resume="allow", reinit="finish_previous", settings=settings, **redact(self._options)
        )
        typed, sys.argv = sys.argv, redact(sys.argv)  # wandb keeps the command line
        try:
            self.wandb_run = begin(mode=self.mode)
        except wandb.Error:
            self.mode = "offline"
            wandb.teardown()  # its service still holds the run; this takes as long again
            print("W&B does not answer: this run is logged offline", file=sys.stderr)
            self.wandb_run = begin(mode=self.mode)
        finally:
            sys.argv = typed
        self.wandb_run.define_metric("step")
        self.wandb_run.define_metric("*", step_metric="step")
        self.wandb_run.define_metric("val/loss", step_metric="step", summary="min")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration was given at the start."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if self.wandb_run is None:
            self.start()
        self.wandb_run.log({**metrics, "step": step})

    @rank_zero_only
    def finish(self, exit_code: int) -> None:
        """Close the run here: left open, the next run of this process would go on in it."""
        if self.wandb_run is not None:
            self.wandb_run.finish(exit_code=exit_code)


def resolve_mode(mode: str) -> str:
    """online or offline for `auto`: online only with a key and a server that answers soon.

    wandb itself would wait 90 seconds for a server that does not answer, and then fail the run.
    """
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    import wandb

    url = wandb.setup().settings.base_url
    if not has_key(urlparse(url).hostname or ""):
        return "offline"
    answer: list[bool] = []
    probe = threading.Thread(target=lambda: answer.append(answers(url)), daemon=True)
    probe.start()
    probe.join(PROBE_S)  # looking up a name may take longer than any time-out of a connection
    return "online" if any(answer) else "offline"


def has_key(host: str) -> bool:
    """Whether there is a key for a W&B server. `wandb.login` would know too, after five seconds without a network."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    places = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    path = next((p for p in (Path(place).expanduser() for place in places if place) if p.is_file()), None)
    try:
        return path is not None and netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def answers(url: str) -> bool:
    """Whether a web server answers at all."""
    try:
        urllib.request.urlopen(url, timeout=PROBE_S).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


class TensorBoard(TensorBoardLogger):
    """TensorBoard's event files in the run directory's `tensorboard/`."""

    def __init__(self, *, run: Run) -> None:
        super().__init__(str(run.directory or ""), name="", version="tensorboard")

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration stands in config.yaml."""

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()


def log_text(logger: Logger, name: str, text: str, step: int) -> None:
    """Show a text in a logger that can."""
    if isinstance(logger, WandB):
        import wandb

        logger.log_metrics({name: wandb.Html(f"<pre>{html.escape(text)}</pre>")}, step)
    elif isinstance(logger, TensorBoard):
        logger.experiment.add_text(name, text, step)
