"""Memory that does not grow with the sequences, as the benchmark measures it."""

import subprocess
import sys

import pytest

from tests.cli_helpers import ROOT, environment


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")
@pytest.mark.parametrize(
    "model", ["LSTM", "r-LSTM 1x600", "r-LSTM 20x30", "p-LSTM 1x600", "LM-LSTM", "SA-LSTM"]
)
def test_ten_times_the_steps_take_hardly_more_memory(model):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", f"--models={model}"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout.split()[-1]) <= 1.25, done.stdout
