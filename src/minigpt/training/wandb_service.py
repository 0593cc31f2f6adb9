"""Whether Weights & Biases can be reached, and how it starts quickly."""

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlparse

from minigpt.runs.redaction import redact
from minigpt.runs.summary import git_commit, git_remote
from minigpt.runs.wandb_key import has_api_key

PROBE_TIMEOUT_S = 1.5  # for a server to answer at all
INIT_TIMEOUT_S = 1.5  # for wandb to begin a run; after that it is logged offline
FINISH_TIMEOUT_S = 2  # for wandb to end a run; what is not uploaded by then stays on the disk
UPLOAD_TIMEOUT_S = 120  # the same where a checkpoint is to be uploaded
LOCAL_TIMEOUT_S = 60  # for either without a server: a busy machine may take seconds, and nothing is there but this file
FLUSH_S = 1.0  # between two writes of the local file, which a killed run leaves behind
ROOM_BYTES = 1 << 18  # that the local files of a short run need
INSPECT_TIMEOUT_S = 20  # for reading the file of one earlier process; it takes a second


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


def usable_mode(mode: str, folder: Path) -> str:
    """The same mode; disabled, and a line says so, where the folder of the local files cannot be written.

    wandb fails, and prints tracebacks, on a disk that is full from the start.
    """
    if mode == "disabled":
        return mode
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM_BYTES))
    except OSError as error:
        say(f"cannot write to {folder} ({error.strerror}): this run is not logged there, metrics.csv has everything")
        return "disabled"
    return mode


def describe_refusal(error: Exception) -> str:
    """What a server did that has not begun a run."""
    found = re.search(r"error 4\d\d|.*API key.*", str(error))  # what it says of a key that it does not know, or no key
    return f"refuses this run ({redact(found[0])})" if found else "does not answer"


def last_local_step(save_dir: Path, run_id: str) -> int:
    """The last step in what earlier processes have written of a run to this disk; -1 when that is nothing."""
    files = Path(save_dir, "wandb").glob(f"*run-*/run-{run_id}.wandb")
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(file)]
        with suppress(OSError, subprocess.SubprocessError, ValueError, AttributeError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSPECT_TIMEOUT_S, check=True)
            step = json.loads(done.stdout).get("summary", {}).get("step")
            if isinstance(step, int):
                return step
    return -1


def is_reachable(url: str) -> bool:
    """Whether a web server is_reachable at all."""
    try:
        urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


def wandb_settings(mode: str = "online", log_model: bool = False) -> Any:
    """How wandb behaves: silent, no long waits for a server, and nothing secret in what it notes of its own accord."""
    import wandb

    finish_timeout = UPLOAD_TIMEOUT_S if log_model else FINISH_TIMEOUT_S
    commit = git_commit()
    return wandb.Settings(
        console="off",
        silent=True,
        init_timeout=INIT_TIMEOUT_S if mode == "online" else LOCAL_TIMEOUT_S,
        finish_timeout=finish_timeout if mode == "online" else LOCAL_TIMEOUT_S,
        finish_timeout_raises=True,
        x_transaction_log_flush_interval=FLUSH_S,
        x_disable_meta=redact(sys.argv) != sys.argv,  # the metadata has the command line, and it has a secret
        disable_git=commit is None,
        git_commit=commit and commit.removesuffix("-dirty"),
        git_remote_url=redact(git_remote() or ""),
    )


def say(what: str) -> None:
    """One line about W&B on standard error."""
    print(f"W&B {what}", file=sys.stderr)
