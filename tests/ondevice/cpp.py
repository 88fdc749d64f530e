"""Compiles the C++ example."""

import pathlib
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "export/ondevice/cpp"


def make(place, *variables):
    command = ["make", "-C", SOURCE, f"PYTHON={sys.executable}", f"BUILD={place}", *variables]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def build(place, *variables):
    done = make(place, "CXXFLAGS=-O2 -Wall -Wextra -Werror", *variables)
    assert done.returncode == 0, done.stderr
    (program,) = place.iterdir()
    return program
