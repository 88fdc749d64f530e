"""What the repository may hold, and what must go together in it."""

import ast
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LARGEST_BINARY = 100_000
GIN_FILES = sorted((ROOT / "gin").rglob("*.gin"))

# Written in two parts, or this file would be found itself.
MACHINE_PATHS = re.compile(r"(?<![\w.$}-])/(?:work|root|home/(?!t2aux)\w+|Us" r"ers/\w+)/")
REGISTRIES = re.compile(
    "py" r"pi\.org|python" r"hosted\.org|npm" r"js\.(?:org|com)|deb" r"ian\.org"
)


def git(*arguments):
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        # The checkout may belong to another user, as in a container.
        ["git", "-c", f"safe.directory={ROOT}", *arguments, "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in done.stdout.split("\0") if name]


def repository_files():
    """What is tracked, or would be: all but what .gitignore names."""
    names = git("ls-files", "--cached", "--others", "--exclude-standard")
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_no_binaries_of_size():
    files = repository_files()
    assert ROOT / "setup.cfg" in files
    for file in files:
        data = file.read_bytes()
        assert b"\0" not in data or len(data) <= LARGEST_BINARY, file


def test_no_path_of_a_machine_and_no_registry():
    for file in repository_files():
        data = file.read_bytes()
        if b"\0" in data:
            continue
        text = data.decode("utf-8")
        for pattern in (MACHINE_PATHS, REGISTRIES):
            found = pattern.search(text)
            assert not found, f"{file}: {found[0]!r}"


def test_nothing_generated_is_tracked():
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []


@pytest.mark.parametrize("file", GIN_FILES, ids=lambda f: f.relative_to(ROOT / "gin").as_posix())
def test_gin_file_says_what_it_is(file):
    header = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        header.append(line.lstrip("#").strip())
    # A sentence: it starts with more than a name and comes to an end.
    assert len(header[0].split()) >= 3 if header else False, f"{file}: no header"
    assert any(line.endswith((".", ":", ")")) for line in header), file


def test_gin_folder_is_no_package():
    # With an __init__.py it would hide the library gin from a checkout's root.
    assert GIN_FILES
    assert not list((ROOT / "gin").rglob("*.py"))


def test_every_package_has_tests():
    packages = [ROOT / "export", *(f.parent for f in (ROOT / "t2aux").glob("*/__init__.py"))]
    assert len(packages) >= 5
    for package in packages:
        assert list((ROOT / "tests" / package.name).glob("test_*.py")), package


# Who may import whom: only what is below, or of the same line. A module that is in none of these
# packages belongs to the shared base, the last line.
LAYERS = (
    ("t2aux.cli", "t2aux.__main__"),
    ("t2aux.pipelines",),
    ("t2aux.reproduce", "t2aux.evaluation", "t2aux.prediction"),
    ("t2aux.training", "t2aux.run", "t2aux.export", "t2aux.serving", "t2aux.client"),
    ("t2aux.layers", "t2aux.losses", "t2aux.model"),
    ("t2aux.kernels",),
    ("t2aux.config", "t2aux.config_older", "t2aux.config_sources", "t2aux.config_reference"),
    ("t2aux.data",),
    ("t2aux", "t2aux_ondevice"),
)
# They share what is below them, and are independent of each other.
INDEPENDENT = ("t2aux.export", "t2aux.serving", "t2aux.client")


def modules():
    """The files of all modules that are installed, by the modules' names."""
    folders = {
        "t2aux": ROOT / "t2aux",
        "t2aux.export": ROOT / "export",
        "t2aux_ondevice": ROOT / "export/ondevice/python/t2aux_ondevice",
    }
    found = {}
    for package, folder in folders.items():
        for file in folder.rglob("*.py"):
            parts = file.relative_to(folder).with_suffix("").parts
            if package != "t2aux.export" or len(parts) == 1:
                found[".".join([package, *parts]).removesuffix(".__init__")] = file
    return found


def imports(name, file, known):
    """The known modules that a module imports anywhere, in functions and for type checkers too."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: -node.level + 1 or None] if node.level else []
            origin = ".".join(filter(None, [*parts, node.module]))
            targets = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            # What is imported from a module may be a module, or something in it.
            while target and target not in known:
                target = target.rpartition(".")[0]
            if target:
                yield target, node.lineno


def test_no_module_imports_what_is_above_it():
    known = modules()
    assert {"t2aux", "t2aux.cli.main", "t2aux.export.pipeline", "t2aux_ondevice.litert"} < set(
        known
    )

    def belongs(name):
        while name not in layers:
            name = name.rpartition(".")[0]
        return name

    layers = {package: rank for rank, line in enumerate(LAYERS) for package in line}
    assert set(layers) <= set(known), "LAYERS names what is not there"
    wrong = []
    for name, file in known.items():
        for target, line in imports(name, file, known):
            own, other = belongs(name), belongs(target)
            upwards = layers[own] > layers[other]
            aside = own != other and {own, other} <= set(INDEPENDENT)
            outwards = own == "t2aux_ondevice" != other
            if upwards or aside or outwards:
                wrong.append(f"{file.relative_to(ROOT)}:{line}: {name} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_what_the_readme_says_is_what_ci_runs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^make \w+(?= +#|$)", readme, re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]
    ci = (ROOT / ".ci" / "run").read_text()
    assert re.findall(r"^make \w+$", ci, re.MULTILINE) == ["make lint", "make test"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command.split()[1] for command in commands} | {"lint"} <= set(targets)


@pytest.mark.parametrize(
    ("audit", "status", "audited"),
    [
        ("true", 0, True),
        ("false", 0, False),
        ("mkdir .venv-audit; echo CVE > .venv-audit/vulnerabilities; false", 1, True),
    ],
)
def test_ci_fails_at_known_vulnerabilities(tmp_path, audit, status, audited):
    done = run_ci(tmp_path, audit)
    assert done.returncode == status, done.stderr
    assert ("The dependencies are NOT audited: " in done.stderr) == (not audited)


def test_ci_ends_its_audit_where_a_test_fails(tmp_path):
    begun = tmp_path / "pid"
    test = f"while ! [ -s {begun} ]; do sleep 0.01; done; false"
    done = run_ci(tmp_path, f"echo $$$$ > {begun}; exec sleep 300", test)
    assert done.returncode, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)


def test_ci_fails_with_the_browser_s_tests(tmp_path):
    done = run_ci(tmp_path, "true", browser="echo not drawn; false")
    assert done.returncode
    assert "not drawn" in done.stdout


def run_ci(folder, audit, test="true", browser="true"):
    """Runs .ci/run where `make audit`, `make test` and `make test-browser` are these commands."""
    (folder / ".ci").mkdir()
    for name in ("run", "browser"):
        shutil.copy(ROOT / ".ci" / name, folder / ".ci")
    targets = {"test": test, "test-browser": browser, "audit": audit}
    rules = "".join(f"{name}:\n\t{command}\n" for name, command in targets.items())
    (folder / "Makefile").write_text(f"lint:\n{rules}")
    programs = folder / "bin"
    programs.mkdir()
    for name in ("chromium", "npm"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if k != "VENV"}
    return subprocess.run(
        [folder / ".ci" / "run"],
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
    )
