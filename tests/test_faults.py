"""Some of the fault tests of `make faults`, with few trials and without baselines."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_quick_fault_tests_hold():
    command = [sys.executable, "-m", "benchmarks.faults", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert done.stdout.count("holds") >= 9 and "DOES NOT HOLD" not in done.stdout
