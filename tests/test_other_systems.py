"""What other systems lack: Unix modules, signals and file systems on Windows; operations and dtypes on Apple's GPUs."""

import ast
import json
import re
from pathlib import Path, PureWindowsPath

import pytest
from tests.forkserver import run_command
from tests.windows import use_windows

ROOT = Path(__file__).parents[1]

TINY = "model.num_layers=1 model.num_heads=2 model.dim=32 model.block_size=16 data.batch_size=8 trainer.max_steps=2"


@pytest.fixture
def windows_cli(tmp_path):
    """Run a command as `cli` does, with what Windows lacks out of its reach."""

    def run(script: str, *options: str):
        paths = (f"paths.log_dir={tmp_path / 'logs'}", f"paths.data_dir={tmp_path / 'data'}")
        done = run_command(script, (*options, *paths), tmp_path, {"SLURM_JOB_ID": "1"}, before=use_windows)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="files in use are told by /proc")
def test_commands_run_with_what_windows_has(windows_cli, tmp_path):
    """Train, resume to another checkpoint, evaluate, generate and export."""
    (tmp_path / "my.txt").write_text("Мышка, мышка, où es-tu?\n" * 200, encoding="utf-8")
    done = windows_cli("train.py", "data=text", "data.path=my.txt", "logger=csv", *TINY.split())
    assert "\\u25" not in done.stdout, "lines and boxes are drawn in what the code page has"
    windows_cli("train.py", "resume=latest", "trainer.max_steps=4")
    (run,) = (tmp_path / "logs/runs").iterdir()
    assert json.loads((run / "summary.json").read_text())["steps"] == 4
    step, last = (run / "checkpoints" / name for name in ("step_4.ckpt", "last.ckpt"))
    assert step.read_bytes() == last.read_bytes() and not step.samefile(last), "a copy in a link's place"
    assert '"val_loss"' in windows_cli("evaluate.py", "run=latest").stdout
    generated = windows_cli("generate.py", "run=latest", "prompt='Мышка'", "max_new_tokens=4").stdout
    assert generated.startswith("".join(f"\\u{ord(c):04x}" for c in "Мышка")), "what the code page lacks is escaped"
    windows_cli("export.py", "run=latest", f"output={tmp_path / 'model.safetensors'}")
    for path in tmp_path.rglob("*"):
        assert not re.search(r'[<>:"|?*\\]|[. ]$', path.name) and not PureWindowsPath(path.name).is_reserved(), path


def test_text_files_name_their_encoding():
    """Without it, Windows reads and writes its code page."""
    calls = [
        f"{file.relative_to(ROOT)}: {ast.unparse(node)}"
        for file in sorted((ROOT / "src").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and re.search(r"(\.read_text|\.write_text|\bopen|\bfdopen)$", ast.unparse(node.func))
    ]
    assert len(calls) > 10
    binary = r"os\.open\(|urlopen\(|safe_open\(|Image\.open\(|webbrowser\.open\(|'[rwa]\+?b\+?'|'\w\+b'"
    assert [call for call in calls if "utf-8" not in call and not re.search(binary, call)] == []
