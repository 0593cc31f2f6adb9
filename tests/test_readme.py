"""The README is true to the letter: its commands run, its files exist, its figures are the measured ones."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"`python (src/\w+\.py[^`]*)`", README)
# What makes a training take a second; the text is generated, since a test may have no network.
QUICK = "model.num_layers=1 model.num_heads=2 model.dim=32 model.block_size=16 data.batch_size=8 trainer.max_steps=2"


def test_the_table_has_its_commands():
    assert len(COMMANDS) >= 10 and {c.split()[0] for c in COMMANDS} == {
        f"src/{d}.py" for d in ("train", "evaluate", "generate", "export", "report", "playground")
    }


def test_the_commands_run_one_after_another(cli, tmp_path):
    (tmp_path / "my.txt").write_text("To be, or not to be, that is the question: ROMEO\n" * 100)
    for command in COMMANDS:
        script, *options = shlex.split(command)
        if script == "src/playground.py":  # serves until it is stopped: tests/playground/test_server.py
            continue
        if script == "src/train.py" and not {"--help"} & set(options):
            quick = [q for q in QUICK.split() if not (q.startswith("model.") and "init_from=my_model" in options)]
            if any(o.startswith("resume=") for o in options):
                options = [o for o in options if not o.startswith("trainer.max_steps=")] + ["trainer.max_steps=4"]
                quick = []
            elif not any(o.startswith("data=") for o in options):
                quick += ["data=synthetic", "data.num_chars=20000"]
            options += [q for q in quick if q.split("=")[0] not in {o.split("=")[0] for o in options}]
        done = cli(Path(script).name, *options)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.skipif(not (ROOT / ".venv/.installed").exists(), reason="this environment was not made by make")
def test_make_train_trains_and_installs_nothing_twice(tmp_path):
    options = (
        f"{QUICK} data=synthetic data.num_chars=20000 paths.log_dir={tmp_path} paths.data_dir={tmp_path} logger=csv"
    )
    done = subprocess.run(["make", "train", f"ARGS={options}"], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Installing" not in done.stdout and "completed" in done.stdout
    assert done.stdout.count("synthetic text, not") == 2, "a box at the start and at the end"
    (run,) = (tmp_path / "runs").iterdir()
    assert "nano-synthetic" in run.name


def test_make_test_is_what_runs_these_tests():
    dry = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-m pytest" in dry
    assert "make test" in (ROOT / ".ci/run").read_text() and "make test " in README


def test_make_help_lists_every_target():
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z][a-z-]*):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(targets) >= 8 and all(f"make {t} " in shown for t in targets)
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE))))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / link).exists(), link


def test_the_faults_are_the_measured_ones():
    (source,) = re.findall(r"<!-- faults: (\S+) -->", README)
    rows = json.loads((ROOT / source).read_text())["rows"]
    assert all(row["holds"] for row in rows) and f"Some of its {len(rows)} rows" in README
    measured = {tuple(f"{r[who]['good']} / {r[who]['of']}" for who in ("ours", "baseline")) for r in rows}
    shown = re.findall(r"\| (\d+ / \d+) \| (\d+ / \d+) \|", README.split(source)[-1])
    assert len(shown) >= 6 and set(shown) <= measured
