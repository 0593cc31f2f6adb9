"""What several tests use: composed configurations, tiny models and texts, and the commands as real processes."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from tests.forkserver import run_command

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Two tests run side by side, and a tiny model gains nothing from more threads, here or in a process begun here.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cache-")  # for measurements of the machine
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture(autouse=True)
def same_seed():
    """Each test draws the same numbers, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def server(monkeypatch):
    """A stand-in for W&B's server, where the runs of a test are logged."""
    import wandb
    from tests.wandb_server import KEY, serving

    from minigpt.training.wandb_logger import SLOW_S

    with serving() as server:
        for name in ("WANDB_MODE", "WANDB_NAME", "WANDB_RUN_ID"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
        monkeypatch.setenv("WANDB_HTTP_TIMEOUT", str(SLOW_S))  # wandb reads it once, in whichever test is the first
        wandb.teardown()  # it keeps the settings of the environment that it met first
        yield server
        wandb.teardown()
        assert not server.unknown, "operations that the stand-in does not know"


@pytest.fixture
def cli(tmp_path):
    """Run a cli as a user does, with its own logs; returns the finished process."""

    def run(script: str, *options: str, data_dir: Path | None = None, timeout: float = 240, **environment: str):
        env = os.environ | {"MINIGPT_DATA_DIR": str(data_dir or tmp_path / "data"), "WANDB_MODE": "offline"}
        env = {k: v for k, v in env.items() if k != "WANDB_API_KEY"} | environment
        if not {"--help", "--cfg"} & set(options):
            options = (*options, f"paths.log_dir={tmp_path / 'logs'}")
        if "-m" in options:  # a report takes seconds; tests/report has its own
            options = (*options, "hydra.callbacks.sweep.report=false")
        return run_command(script, options, tmp_path, env, timeout)

    return run


@pytest.fixture(scope="module")
def browser():
    """A headless browser: the system's Chromium, where there is one; none is downloaded."""
    if CHROMIUM is None:
        pytest.skip("no Chromium or Chrome on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
