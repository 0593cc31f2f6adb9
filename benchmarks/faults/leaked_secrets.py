"""Secrets in the environment, on the command line and in URLs, searched for in the files of a run."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.harness import ROOT, TINY, TINY_MODEL, Process, run
from benchmarks.faults.results import Result, Row

KEY, TOKEN, PASSWORD = "canary0123456789abcdefcanary0123456789ab", "another-canary-token", "hunter2hunter2"
BASELINE_APP = "import hydra\n@hydra.main(version_base='1.3', config_path=None)\ndef main(c): pass\nmain()\n"


def secrets(folder: Path, baselines: int) -> Iterator[Row]:
    """A key in the environment and in a prompt, a password in a URL: no file of the run or the export has them."""
    text, logs = folder / "text.txt", folder / "logs"
    text.write_text("All the world's a stage.\n" * 400)
    (folder / "data").mkdir()
    shutil.copy(text, folder / "data/text.txt")
    options = [o for o in TINY if o != "debug=fast"] + TINY_MODEL
    options += ["logger=wandb", "trainer.max_steps=4", "name=run", f"paths.log_dir={logs}", "data=text"]
    options += [f"data.path={text}", f"+data.url='https://user:{PASSWORD}@127.0.0.1/x?token={PASSWORD}'"]
    options += [f"+callbacks.samples.prompt='A {KEY} {TOKEN}'"]
    done = run(options, folder, environment={"WANDB_API_KEY": KEY, "MY_SERVICE_TOKEN": TOKEN})
    assert done.exit_code == 0, done.stderr
    (run_dir,) = (logs / "runs").iterdir()
    export = [f"run={run_dir}", f"output={logs}/x.safetensors"]
    assert run(export, folder, script=ROOT / "src/export.py").exit_code == 0
    ours = count_leaks(logs, [KEY, PASSWORD, TOKEN])
    baseline = None
    if baselines:
        script = folder / "app.py"
        script.write_text(BASELINE_APP)
        Process([f"+key={KEY}", f"hydra.run.dir={folder}/baseline"], folder, script=script).wait()
        baseline = count_leaks(folder / "baseline", [KEY])
    yield Row("keys in the environment, passwords in URLs: in no file of a run", ours, "Hydra", baseline)


def count_leaks(folder: Path, secret_words: list[str]) -> Result:
    """How many files of a folder contain none of the secrets."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    found = [p.name for p in files if any(word.encode() in p.read_bytes() for word in secret_words)]
    return Result(len(files) - len(found), len(files), f"{len(found)} of {len(files)} files have a secret {found[:4]}")
