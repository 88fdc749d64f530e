"""The package in a wheel, in an editable install and in a checkout; and its pinned versions."""

import configparser
import email
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLIENT = "export/ondevice/python"
ONDEVICE = f"{CLIENT}/t2aux_ondevice"
# Folders of the checkout, and where each is in the installed package.
WEB = "export/ondevice/web"
FOLDERS = {
    "t2aux": "t2aux",
    "export": "t2aux/export",
    "gin": "t2aux/gin",
    WEB: "t2aux/export/ondevice/web",
}
SUFFIXES = {
    "t2aux": (".py", ".cc", ".h", ".jinja"),
    "export": (".py", ".jinja"),
    "gin": (".gin",),
    WEB: (".html", ".css", ".js", ".json"),
}
CPP = "export/ondevice/cpp"
LEFT = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]

# What a program that has the package sees: printed as JSON on the last line.
LOOK = """
import importlib.metadata, json, sys
import t2aux, t2aux.config, t2aux.export, t2aux_ondevice.litert
from t2aux.cli import main
print(json.dumps({
    "package": t2aux.__file__,
    "export": t2aux.export.__file__,
    "ondevice": t2aux_ondevice.__file__,
    "gin": str(t2aux.config.bundled_gin_dir()),
    "bundled": t2aux.config.list_bundled(),
    "tensorflow": "tensorflow" in sys.modules,
}))
"""


def shipped_files():
    """The files of the checkout that an installation must have, by their places in it."""
    found = {}
    for folder, place in FOLDERS.items():
        for file in (ROOT / folder).rglob("*"):
            inner = folder == "export" and "ondevice" in file.parts
            if file.suffix in SUFFIXES[folder] and not inner:
                found[f"{place}/{file.relative_to(ROOT / folder).as_posix()}"] = file
    return found


def run(*arguments, cwd, path=()):
    """Runs Python and returns what it prints; t2aux is found through `path` alone.

    Without `site` (-S) an installed t2aux is not seen, whichever way the tests' own one came there;
    the libraries are, as plain folders.
    """
    libraries = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    done = subprocess.run(
        [sys.executable, "-S", *map(str, arguments)],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, [*path, *libraries])),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of all that an installation is made of: building leaves files behind."""
    copy = tmp_path_factory.mktemp("sources")
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for folder in ("t2aux", "export", "gin"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=LEFT)
    return copy


@pytest.fixture(scope="module")
def wheels(sources, tmp_path_factory):
    """The wheels of t2aux and of t2aux-ondevice."""
    place = tmp_path_factory.mktemp("wheels")
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    folders = [sources, sources / CLIENT]
    run("-m", "pip", "wheel", *options, "--wheel-dir", place, *folders, cwd=place)
    (library,) = place.glob("t2aux-*.whl")
    (client,) = place.glob("t2aux_ondevice-*.whl")
    return library, client


@pytest.fixture(scope="module")
def wheel(wheels):
    return wheels[0]


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory):
    place = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-index", "--no-compile", "--quiet"]
    run("-m", "pip", "install", *options, "--target", place, *wheels, cwd=place)
    return place


@pytest.fixture(scope="module")
def editable(sources, tmp_path_factory):
    """The folder that the editable installs put into site-packages."""
    place = tmp_path_factory.mktemp("editable")
    build = "from setuptools import build_meta; build_meta.build_editable({!r})"
    for folder in (sources, sources / CLIENT):
        run("-c", build.format(str(place)), cwd=folder)
    for file in place.glob("*.whl"):
        with zipfile.ZipFile(file) as archive:
            archive.extractall(place)
    return place


def contents(archive):
    return {n for n in archive.namelist() if not n.endswith("/") and ".dist-info/" not in n}


def test_wheel_holds_all_packages_and_gin_files_and_nothing_else(wheel):
    files = shipped_files()
    some = {"t2aux/cli/main.py", "t2aux/export/__init__.py", "t2aux/gin/base.gin"}
    assert some | {f"{FOLDERS[WEB]}/index.html"} < set(files)
    with zipfile.ZipFile(wheel) as archive:
        assert contents(archive) == set(files)
        for name, file in files.items():
            assert archive.read(name) == file.read_bytes(), name


@pytest.fixture(scope="module")
def held(wheels):
    """The files of each distribution."""
    held = {}
    for name, file in zip(("t2aux", "t2aux-ondevice"), wheels, strict=True):
        with zipfile.ZipFile(file) as archive:
            held[name] = contents(archive)
    return held


def test_no_file_belongs_to_both_distributions(held):
    """Or pip would remove one's files with the other, or replace them by another version's."""
    assert held["t2aux-ondevice"] == {
        f"t2aux_ondevice/{file.name}" for file in (ROOT / ONDEVICE).glob("*.py")
    }
    assert not held["t2aux"] & held["t2aux-ondevice"]


@pytest.mark.long
def test_each_distribution_is_removed_without_the_other(held, wheels, tmp_path):
    # Without the variables that lead to other installations.
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    for removed, kept in (tuple(held), tuple(held)[::-1]):
        place = tmp_path / removed
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
        (packages,) = place.glob("lib/python*/site-packages")
        pip = [sys.executable, "-m", "pip", "--python", place / "bin" / "python"]
        install = ["install", "--no-deps", "--no-index", "--quiet", *wheels]
        uninstall = ["uninstall", "--yes", "--quiet", removed]
        subprocess.run([*pip, *install], env=variables, check=True, timeout=120)
        assert all((packages / name).is_file() for names in held.values() for name in names)
        subprocess.run([*pip, *uninstall], env=variables, check=True, timeout=120)
        assert all((packages / name).is_file() for name in held[kept])
        assert not any((packages / name).is_file() for name in held[removed])


def test_both_install_from_a_checkout_without_an_index(sources, tmp_path):
    """As the README says: pip finds in one folder what the other requires."""
    place = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    libraries = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    (packages / "libraries.pth").write_text("\n".join(libraries))
    offline = ["--no-index", "--no-build-isolation", "--no-compile", "--quiet"]
    subprocess.run(
        [place / "bin/python", "-m", "pip", "install", *offline, "./export/ondevice/python", "."],
        cwd=sources,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        check=True,
        timeout=120,
    )
    for name in ("t2aux", "t2aux_ondevice"):
        assert (packages / name / "__init__.py").is_file()
    assert {"t2aux", "t2aux-ondevice"} <= {file.name for file in (place / "bin").iterdir()}


def test_source_distribution_holds_what_devices_need_too(sources, tmp_path):
    (sources / "export/ondevice/cpp/build").mkdir(exist_ok=True)
    (sources / "export/ondevice/cpp/build/left.cc").touch()
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    run("-c", build, cwd=sources)
    (file,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    example = {file.relative_to(ROOT).as_posix() for file in (ROOT / CPP).iterdir()}
    example.discard(f"{CPP}/build")
    assert {f"{CPP}/classifier.h", f"{CPP}/Makefile"} < example < names
    assert "export/stateless.py" in names
    assert f"{CPP}/build/left.cc" not in names
    client = {f.relative_to(ROOT).as_posix() for f in (ROOT / ONDEVICE).glob("*.py")}
    assert client | {f"{CLIENT}/{f}" for f in ("setup.cfg", "pyproject.toml")} < names


def test_wheel_describes_itself(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {n.split("/")[0] for n in archive.namelist() if ".dist-info/" in n}
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(f"{info}/entry_points.txt").decode())
        licences = [n for n in archive.namelist() if n.startswith(info) and "LICENSE" in n]
        assert archive.read(licences[0]) == (ROOT / "LICENSE").read_bytes()
    assert metadata["Name"] == "t2aux"
    assert f'__version__ = "{metadata["Version"]}"' in (ROOT / "t2aux/__init__.py").read_text()
    assert "Apache-2.0" in (metadata["License"] or metadata["License-Expression"])
    assert f"t2aux-ondevice=={metadata['Version']}" in metadata.get_all("Requires-Dist")
    assert "make demo" in metadata.get_payload()
    assert dict(scripts["console_scripts"]) == {"t2aux": "t2aux.cli.main:main"}


def assert_whole(seen, package, export, gin, ondevice):
    seen = json.loads(seen.splitlines()[-1])
    assert pathlib.Path(seen["package"]) == package / "__init__.py"
    assert pathlib.Path(seen["export"]) == export / "__init__.py"
    assert pathlib.Path(seen["gin"]) == gin
    assert pathlib.Path(seen["ondevice"]) == ondevice / "__init__.py"
    expected = [f.relative_to(ROOT / "gin") for f in (ROOT / "gin").rglob("*.gin")]
    assert seen["bundled"] == sorted(f.with_suffix("").as_posix() for f in expected)
    assert {"quickstart", "paper/mnist"} < set(seen["bundled"])
    assert not seen["tensorflow"]


def test_installed_wheel_works(installed, tmp_path):
    seen = run("-c", LOOK, cwd=tmp_path, path=[installed])
    place = installed / "t2aux"
    assert_whole(seen, place, place / "export", place / "gin", installed / "t2aux_ondevice")


# With TensorFlow; that all gin files are there is tested without.
@pytest.mark.long
def test_installed_gin_files_are_read(installed, tmp_path):
    # A file that includes others is read to its end.
    parse = (
        "import t2aux.data, t2aux.training.train, t2aux.losses.reconstruction as _\n"
        "from t2aux import config; print(config.parse(['paper/mnist', 'models/lstm'], []))"
    )
    assert "train.data = @mnist()" in run("-c", parse, cwd=tmp_path, path=[installed])


def test_installed_program_helps(installed, tmp_path):
    for arguments in (["-m", "t2aux"], ["-m", "t2aux.cli.main"]):
        out = run(*arguments, "--help", cwd=tmp_path, path=[installed])
        assert "t2aux COMMAND" in out
    script = (installed / "bin" / "t2aux").read_text()
    assert "t2aux.cli.main" in script


@pytest.mark.parametrize("within", [False, True], ids=["elsewhere", "in the checkout"])
def test_editable_install_works(editable, sources, tmp_path, within):
    # First on the path: the environment may have the finder of an editable install of its own.
    add = f"import site; site.addsitedir({str(editable)!r})\n"
    place, path = (sources, [sources, editable]) if within else (tmp_path, [editable])
    seen = run("-c", add + LOOK, cwd=place, path=path)
    assert_whole(seen, *(sources / name for name in ("t2aux", "export", "gin", ONDEVICE)))
    helps = f"{add}import runpy, sys; sys.argv = ['t2aux', '--help']; runpy.run_module('t2aux')"
    assert "t2aux COMMAND" in run("-c", helps, cwd=place, path=path)
    for name in ("tests", "benchmarks"):
        (sources / name).mkdir(exist_ok=True)
        (sources / name / "__init__.py").touch()
        code = f"{add}import importlib.util; print(importlib.util.find_spec('t2aux.{name}'))"
        assert run("-c", code, cwd=place, path=path) == "None\n"


@pytest.mark.parametrize("other", [None, "wheel", "editable"])
def test_a_checkout_that_is_not_what_is_installed_is_refused(other, installed, editable, tmp_path):
    """Rather than that one's modules are used with the other's exports and gin files."""
    place = {None: None, "wheel": installed, "editable": editable}[other]
    add = f"import site; site.addsitedir({str(place)!r})\n" if place else ""
    code = f"{add}try:\n    import t2aux\nexcept ImportError as error:\n    print(error)"
    printed = run("-c", code, cwd=tmp_path, path=[ROOT, *([place] if place else [])])
    assert str(ROOT) in printed
    assert "pip install -e ./export/ondevice/python -e ." in printed


def direct_requirements():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    # Not those of the benchmarks, which no user installs.
    extras = (setup["options.extras_require"][name] for name in ("dev", "quantization", "serving"))
    lines = "\n".join([setup["options"]["install_requires"], *extras])
    found = [Requirement(line) for line in lines.split("\n") if line]
    # From the same checkout, on no index.
    return [r for r in found if r.name != "t2aux-ondevice"]


def pins(python):
    """The version of each library that constraints.txt gives to a Python on Linux."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
    }
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        pin = Requirement(line)
        assert re.fullmatch(r"==[\w.+!]+", str(pin.specifier)), line
        assert pin.url is None, line
        if pin.marker is None or pin.marker.evaluate(environment):
            name = canonicalize_name(pin.name)
            assert name not in found, f"two versions for Python {python}: {line}"
            found[name] = str(pin.specifier)[2:]
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_each_python_has_one_version_of_each_dependency(python):
    pinned = pins(python)
    for requirement in direct_requirements():
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement
        assert [s.operator for s in requirement.specifier] == [">="], requirement
    # What ai-edge-litert needs on every Python; from 1.3 on it refuses 3.11 and later.
    assert tuple(map(int, pinned["backports-strenum"].split("."))) < (1, 3)


def test_pinned_versions_are_those_that_are_tested():
    """In an environment that `make` built, the libraries are the pinned ones."""
    if not (pathlib.Path(sys.prefix) / ".ready").exists():
        pytest.skip("not an environment that make built")
    from importlib.metadata import version

    pinned = pins(f"{sys.version_info[0]}.{sys.version_info[1]}")
    for requirement in direct_requirements():
        assert version(requirement.name) == pinned[canonicalize_name(requirement.name)]
