"""The kernel's computations without TensorFlow: under sanitizers, and for narrower vectors."""

import pathlib
import platform
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).parent
KERNELS = HERE.parents[1] / "t2aux" / "kernels"


def compile_with(tmp_path, source, *flags):
    program = tmp_path / "program"
    command = ["g++", "-std=c++17", "-O1", "-march=native", "-ffp-contract=fast", "-pthread"]
    done = subprocess.run(
        [*command, *flags, f"-I{KERNELS}", str(source), "-o", str(program)],
        capture_output=True,
        text=True,
    )
    return program, done


def sanitized(tmp_path, flag):
    """Whether this machine's compiler has the sanitizer's library: not all bring it."""
    probe = tmp_path / "probe.cc"
    probe.write_text("int main() { return 0; }\n")
    program, done = compile_with(tmp_path, probe, flag)
    return done.returncode == 0 and run(program).returncode == 0


def run(program, *arguments):
    # ThreadSanitizer can't place its memory where addresses are randomised widely.
    prefix = ["setarch", "-R"] if shutil.which("setarch") else []
    return subprocess.run(
        [*prefix, str(program), *arguments], capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("processor", [pytest.param("haswell", marks=pytest.mark.long), "x86-64"])
def test_other_vectors(tmp_path, processor):
    if shutil.which("g++") is None or platform.machine() != "x86_64":
        pytest.skip("made for g++ on an x86-64 machine with AVX2")
    program, done = compile_with(tmp_path, HERE / "driver.cc", f"-march={processor}")
    assert done.returncode == 0, done.stderr
    done = run(program)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_amx_in_emulation(tmp_path, monkeypatch):
    cpus = pathlib.Path("/proc/cpuinfo")
    if shutil.which("g++") is None or not cpus.exists() or "avx512f" not in cpus.read_text():
        pytest.skip("needs g++ and AVX-512")
    flags = ("-DT2AUX_EMULATE_AMX", "-Wall", "-Werror")
    program, done = compile_with(tmp_path, HERE / "driver.cc", *flags)
    assert done.returncode == 0, done.stderr
    for switch, products in (("on", True), ("off", False)):
        monkeypatch.setenv("T2AUX_KERNEL_AMX", switch)
        done = run(program)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout == ("ok, with AMX\n" if products else "ok\n")


@pytest.mark.parametrize(
    "flag",
    [
        pytest.param(f"-fsanitize={s}", marks=pytest.mark.long)
        for s in ("address,undefined", "thread")
    ],
)
def test_the_driver_is_clean(tmp_path, flag):
    if shutil.which("g++") is None or not sanitized(tmp_path, flag):
        pytest.skip(f"g++ {flag} makes no program that runs on this machine")
    program, done = compile_with(
        *(tmp_path, HERE / "driver.cc", flag, "-g"),
        *("-fno-sanitize-recover=all", "-Wall", "-Werror"),
    )
    assert done.returncode == 0, done.stderr
    done = run(program, "whole")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "ok\n"
