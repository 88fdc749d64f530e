"""The page that classifies in the browser: what is built, and how it is served.

tests/ondevice/test_demo_page_browser.py runs it in a browser.
"""

import base64
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from t2aux.errors import DependencyError, FileError, ModelError, ServerError
from t2aux.export import demo_page, flatbuffer, litert_js, static_server
from t2aux_ondevice import litert
from tests import small_exports
from tests.cli_helpers import assert_one_sentence, environment, t2aux

# Does what `npm ci` does, with made up files; says that it ran.
NPM = f"""#!{sys.executable}
import os, pathlib, sys
assert sys.argv[1] == "ci" and os.path.exists("package-lock.json"), sys.argv
with open(os.environ["NPM_RUNS"], "a") as file:
    file.write("ran\\n")
for name in {sorted(litert_js.FILES.values())!r}:
    if name.endswith(os.environ.get("NPM_FORGETS", "nothing")):
        continue
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("// " + name)
"""


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    place = tmp_path_factory.mktemp("exports")
    for name in ("IMAGES", "TEXT", "VECTORS"):
        small_exports.write(place / name / "1", getattr(small_exports, name))
    return place


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm that needs no network, alone on the PATH; the file that it notes its runs in."""
    write_npm(tmp_path, NPM)
    runs = tmp_path / "runs"
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("NPM_RUNS", str(runs))
    monkeypatch.setenv("T2AUX_CACHE_DIR", str(tmp_path / "cache"))
    return runs


def write_npm(tmp_path, program):
    path = tmp_path / "bin" / "npm"
    path.parent.mkdir(exist_ok=True)
    path.write_text(program)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def files_of(place):
    return {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()}


def left_behind(tmp_path, *expected):
    """Unexpected files in the folder."""
    return {p.name for p in tmp_path.iterdir()} - {"bin", "runs", "cache", *expected}


@pytest.mark.parametrize("kind", ["IMAGES", "TEXT"])
def test_page_holds_all_that_it_asks_for(exports, npm, tmp_path, kind):
    page = demo_page.build(exports / kind, tmp_path / "page")
    ours = {p.name for p in litert_js.PROJECT.iterdir()} - {"package.json", "package-lock.json"}
    runtime = {f"litert/{name}" for name in litert_js.FILES}
    assert files_of(page) == ours | runtime | {"classifier.tflite", "metadata.json", "page.json"}
    assert {"index.html", "main.js", "style.css"} <= ours
    assert (page / "litert/core/index.js").read_text().endswith("core/dist/index.js")
    source = exports / kind / "1"
    assert (page / "metadata.json").read_bytes() == (source / "metadata.json").read_bytes()
    for file in page.rglob("*"):
        assert file.stat().st_mode & stat.S_IROTH, f"a web server can't read {file.name}"
    assert not left_behind(tmp_path, "page")


def test_model_reads_one_step_as_the_stream_does(exports, npm, tmp_path):
    for kind, size in (("IMAGES", 16), ("TEXT", 9)):
        page = demo_page.build(exports / kind, tmp_path / kind)
        content = (page / demo_page.MODEL).read_bytes()
        original = (exports / kind / "1" / litert.STREAM).read_bytes()
        assert content != original
        shutil.copy(page / "metadata.json", tmp_path)
        metadata = json.loads((tmp_path / "metadata.json").read_text())
        metadata["files"][litert.STREAM] = {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        (tmp_path / "metadata.json").write_text(json.dumps(metadata))
        (tmp_path / litert.STREAM).write_bytes(content)
        one_step = litert.LiteRTClassifier(tmp_path / litert.STREAM)
        whole = litert.LiteRTClassifier(exports / kind / "1" / litert.STREAM)
        rng = np.random.default_rng(0)
        sequence = rng.random([size, 1], np.float32) if kind == "IMAGES" else rng.integers(0, 6, 9)
        stream = one_step.start()
        for step in range(size):
            probabilities = stream.read(sequence[step : step + 1])
        np.testing.assert_allclose(probabilities, whole.probabilities(sequence), rtol=0, atol=1e-6)


def test_fixed_size_is_the_only_one(exports):
    content = (exports / "VECTORS" / "1" / litert.STREAM).read_bytes()
    interpreter = Interpreter(model_content=flatbuffer.with_steps(content, 3))
    (segment,) = (d for d in interpreter.get_input_details() if "segment" in d["name"])
    assert list(segment["shape"]) == [1, 3, 2]
    assert list(segment["shape_signature"]) == [1, 3, 2]


def test_built_again_it_takes_the_place_of_the_old_page(exports, npm, tmp_path):
    page = demo_page.build(exports / "IMAGES", tmp_path / "page")
    (page / "old.js").touch()
    demo_page.build(exports / "TEXT", page)
    assert not (page / "old.js").exists()
    assert json.loads((page / "metadata.json").read_text())["kind"] == "text"
    assert npm.read_text() == "ran\n", "LiteRT.js is fetched once"
    assert not left_behind(tmp_path, "page")


def test_another_folder_stays(exports, npm, tmp_path):
    place = tmp_path / "thesis"
    place.mkdir()
    demo_page.build(exports / "IMAGES", place)  # An empty folder may be used.
    shutil.rmtree(place)
    place.mkdir()
    (place / "chapter.tex").write_text("It was a dark night.")
    for foreign in (place, place / "chapter.tex"):
        with pytest.raises(FileError, match=f"^{foreign} .*--output_dir"):
            demo_page.build(exports / "IMAGES", foreign)
    (place / demo_page.DESCRIPTION).write_text('{"format": "another"}')
    with pytest.raises(FileError, match=f"^{place} .*--output_dir"):
        demo_page.build(exports / "IMAGES", place)
    assert (place / "chapter.tex").read_text() == "It was a dark night."


def test_failure_leaves_the_old_page(exports, npm, tmp_path, monkeypatch):
    page = demo_page.build(exports / "IMAGES", tmp_path / "page")
    before = {p: p.read_bytes() for p in page.rglob("*") if p.is_file()}

    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo_page.files, "write_json", full)
    with pytest.raises(FileError, match=f" {page} .*No space left"):
        demo_page.build(exports / "TEXT", page)
    assert {p: p.read_bytes() for p in page.rglob("*") if p.is_file()} == before
    assert not left_behind(tmp_path, "page")


def test_exports_that_no_page_can_show(exports, npm, tmp_path):
    with pytest.raises(ModelError, match=" vectors: "):
        demo_page.build(exports / "VECTORS", tmp_path / "page")
    with pytest.raises(FileError, match=f"^{tmp_path} .*--export_dir"):
        demo_page.build(tmp_path, tmp_path / "page")
    with pytest.raises(FileError, match=f"^{exports / 'IMAGES'} .* 7, .* 1"):
        demo_page.build(exports / "IMAGES", tmp_path / "page", version=7)
    copy = tmp_path / "damaged" / "1"
    shutil.copytree(exports / "IMAGES" / "1", copy)
    content = bytearray((copy / litert.STREAM).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / litert.STREAM).write_bytes(content)
    with pytest.raises(ModelError, match=r"classifier_stream\.tflite"):
        demo_page.build(copy, tmp_path / "page")
    metadata = json.loads((copy / "metadata.json").read_text())
    del metadata["artefacts"][litert.STREAM]
    (copy / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ModelError, match="--formats=tflite"):
        demo_page.build(copy.parent, tmp_path / "page")
    assert not left_behind(tmp_path, "damaged")


def test_newest_version_is_taken_unless_another_is_named(exports, npm, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(exports / "IMAGES" / "1", base / "2")
    shutil.copytree(exports / "TEXT" / "1", base / "10")
    for version, kind in ((None, "text"), (2, "image")):
        page = demo_page.build(base, tmp_path / "page", version=version)
        assert json.loads((page / "metadata.json").read_text())["kind"] == kind
    page = demo_page.build(base / "2", tmp_path / "page")
    assert json.loads((page / "metadata.json").read_text())["kind"] == "image"


def test_a_damaged_runtime_is_fetched_again(npm, tmp_path):
    place = litert_js.folder()
    assert place.parent == tmp_path / "cache"
    damaged = place / "wasm" / "litert_wasm_internal.wasm"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + b"?")
    assert litert_js.folder() == place
    assert damaged.read_bytes() == whole
    damaged.unlink()
    litert_js.folder()
    assert damaged.read_bytes() == whole
    assert npm.read_text() == 3 * "ran\n"


def test_runtime_that_can_not_be_had(npm, tmp_path, monkeypatch):
    monkeypatch.setenv("NPM_FORGETS", "core/dist/index.js")
    with pytest.raises(DependencyError, match=r"npm .*index\.js"):
        litert_js.folder()
    write_npm(
        tmp_path, "#!/bin/sh\necho 'npm error code E404' >&2\necho 'npm error 404 gone' >&2; exit 1"
    )
    with pytest.raises(DependencyError, match=r"npm .*\(404 gone\)"):
        litert_js.folder()
    (tmp_path / "bin" / "npm").unlink()
    with pytest.raises(DependencyError, match=r"npm, .*Node\.js"):
        litert_js.folder()
    assert not list((tmp_path / "cache").iterdir())


def test_command_builds_a_page(exports, npm, tmp_path):
    done = t2aux(
        "demo-page", f"--export_dir={exports / 'TEXT'}", f"--output_dir={tmp_path / 'page'}",
        "--build_only",
    )  # fmt: skip
    assert "any web server can serve it" in done.stdout
    assert (tmp_path / "page" / "index.html").is_file()


def test_command_refuses_in_one_sentence(exports, tmp_path):
    done = t2aux("demo-page", f"--export_dir={exports / 'TEXT'}", "--build_only", check=False)
    assert_one_sentence(done, "--build_only", "--output_dir")
    done = t2aux("demo-page", f"--export_dir={tmp_path / 'none'}", check=False)
    assert_one_sentence(done, str(tmp_path / "none"), "--export_dir")


def test_command_serves_until_it_is_stopped(exports, npm, tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "t2aux",
            "demo-page",
            f"--export_dir={exports / 'TEXT'}",
            "--port=0",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(TMPDIR=str(tmp_path)),
    )
    try:
        url = process.stdout.readline().split("The page is at ")[1].split()[0]
        answer, _ = fetched(url, "/")
        assert answer.status == 200
        assert [p.name for p in tmp_path.glob("t2aux-page-*")]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    process.stdout.close()
    assert not list(tmp_path.glob("t2aux-page-*"))


def test_page_of_digits_has_a_test_image_of_each_class():
    info = small_exports.DatasetInfo("digits", "image", tuple("0123456789"), 1, 64, side=8)
    examples = demo_page._examples(info)
    assert [example["label"] for example in examples] == list("0123456789")
    assert demo_page._examples(small_exports.IMAGES) == []


@pytest.fixture
def served(tmp_path):
    place = tmp_path / "site"
    (place / "folder").mkdir(parents=True)
    (place / "index.html").write_text("<p>page</p>")
    (tmp_path / "secret").write_text("secret")
    for name in ("main.js", "style.css", "model.tflite", "runtime.wasm", "page.json"):
        (place / name).write_text(name)
    with static_server.Server(place, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetched(url, path):
    host = url.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/main.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/model.tflite", "application/octet-stream"),
        ("/runtime.wasm", "application/wasm"),
        ("/page.json", "application/json"),
    ],
)
def test_server_sends_types_and_isolates_the_page(served, path, kind):
    answer, _ = fetched(served.url, path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == kind
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/folder/", "/../secret", "/%2e%2e/secret", "/none"])
def test_server_gives_only_the_page(served, path):
    answer, body = fetched(served.url, path)
    assert answer.status == 404
    assert b"secret" not in body.replace(b"/secret", b"")


def test_port_in_use_is_one_sentence(served, tmp_path):
    port = int(served.url.rstrip("/").rsplit(":", 1)[1])
    with pytest.raises(ServerError, match=f" 127.0.0.1:{port} .*--port"):
        static_server.Server(tmp_path, "127.0.0.1", port)


def test_import_map_is_the_one_that_the_policy_allows():
    """Else the browser refuses it, and the page stays empty."""
    html = (litert_js.PROJECT / "index.html").read_text()
    (script,) = re.findall(r'<script type="importmap">(.*?)</script>', html, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in html
    assert os.path.basename(json.loads(script)["imports"]["@litertjs/wasm-utils"]) == "index.js"
