"""`t2aux serve` as users run it."""

import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import requests

from t2aux.client import transport
from t2aux.errors import SettingError
from t2aux.serving import configuration
from t2aux.serving.batching import BatchingOptions
from tests import small_exports
from tests.cli_helpers import assert_one_sentence, environment, fork_server, python, t2aux

BODY = {"instances": [{"inputs": [[0.5]] * 16, "lengths": 16}]}
CONFIGS = {
    "models": 'model_config_list {{ config {{ name: "mine" base_path: "{base}" }} }}',
    "batching": "max_batch_size {{ value: 4 }} allowed_batch_sizes: 2 allowed_batch_sizes: 4",
    "monitoring": 'prometheus_config {{ enable: true path: "/metrics" }}',
}


def loads_of(page, folder):
    """How often a version could not be loaded, in what Prometheus reads."""
    pattern = rf'load_attempt_count{{model_path="{re.escape(str(folder))}",status="fail"}} (\S+)'
    return sum(map(float, re.findall(pattern, page)))


@pytest.fixture
def base(tmp_path):
    """The base path of a model that loads at once; its folder is a link."""
    small_exports.write_quick(tmp_path / "quick")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "1").symlink_to(tmp_path / "quick")
    return tmp_path / "base"


def test_serves_until_it_is_stopped(base, tmp_path):
    for name, text in CONFIGS.items():
        (tmp_path / name).write_text(text.format(base=base))
    process = fork_server().start(
        tmp_path / "log",
        *("serve", "--port=0", "--rest_api_port=0"),
        f"--model_config_file={tmp_path / 'models'}",
        f"--batching_parameters_file={tmp_path / 'batching'}",
        f"--monitoring_config_file={tmp_path / 'monitoring'}",
        "--file_system_poll_wait_seconds=0.05",
        "--load_retry_interval_micros=10000",
        "--max_num_load_retries=2",
        out=tmp_path / "out",
    )
    try:
        process.wait_until(lambda: (tmp_path / "out").read_text().count("\n") >= 2)
        first, line = (tmp_path / "out").read_text().splitlines()
        assert first == "Serving mine, version 1."
        assert line.startswith("gRPC at 127.0.0.1:")
        model = line.split("REST at ")[1].strip()
        assert requests.get(model, timeout=60).status_code == 200
        url = model.removesuffix("/v1/models/mine")
        answer = requests.post(f"{url}/v1/models/mine:predict", json=BODY, timeout=60)
        assert answer.status_code == 200
        refused = requests.post(
            f"{url}/v1/models/mine:predict", json={"instances": BODY["instances"] * 5}, timeout=60
        )
        assert "Task size 5 is larger than maximum batch size 4" in refused.json()["error"]
        page = requests.get(f"{url}/metrics", timeout=60).text
        assert "padding_size_count" in page
        # A version that can't be loaded: once, and twice more, 10 ms apart instead of 1 s and 2 s.
        (base / "2").mkdir()
        (base / "2" / "saved_model.pb").write_bytes(b"nonsense")
        begin = time.monotonic()
        while loads_of(page, base / "2") < 3:
            assert time.monotonic() < begin + 60
            time.sleep(0.05)
            page = requests.get(f"{url}/metrics", timeout=60).text
        time.sleep(0.5)
        assert loads_of(requests.get(f"{url}/metrics", timeout=60).text, base / "2") == 3
        assert requests.get(model, timeout=60).status_code == 200
        # A second server must not share the port in silence.
        port = url.rsplit(":", 1)[1]
        second = t2aux(
            *("serve", f"--model_base_path={base}", "--port=0", f"--rest_api_port={port}"),
            "--file_system_poll_wait_seconds=0.05",
            check=False,
        )
        assert_one_sentence(second, f" 127.0.0.1:{port}: ", "--rest_api_port")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr
    finally:
        process.kill()


def test_a_grpc_port_that_is_taken(base):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = [f"--model_base_path={base}", "--file_system_poll_wait_seconds=0.05"]
        done = t2aux("serve", *flags, f"--port={port}", "--rest_api_port=0", check=False)
    assert_one_sentence(done, f" 127.0.0.1:{port}: ", "--port")


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.long
@pytest.mark.skipif(not has_ipv6(), reason="This machine has no IPv6 loopback.")
def test_serves_over_ipv6(base_paths):
    base = f"--model_base_path={base_paths['images'][0]}"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "t2aux", "serve", base, "--host=::1"),
            *("--port=0", "--rest_api_port=0"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout.readline() == "Serving images, version 1.\n"
        line = process.stdout.readline()
        found = re.fullmatch(r"gRPC at (\[::1\]:\d+), REST at (http://\[::1\]:\d+)/(\S+)\n", line)
        assert found, line
        assert requests.get(f"{found[2]}/{found[3]}", timeout=60).status_code == 200
        for address in (f"grpc://{found[1]}", found[2]):
            way = transport.connect(address)
            assert [s.state for s in way.status("images", None, 60)] == ["AVAILABLE"]
            way.close()
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ([], "--model_base_path or --model_config_file"),
        (["--model_config_file=nowhere"], " nowhere: No such file"),
        (["--model_base_path=x", "--port=70000"], "--port"),
        (["--model_base_path=x", "--load_retry_interval_micros=-1"], "load_retry_interval_micros"),
        (["--model_base_path=x", "--max_num_load_retries=-1"], "max_num_load_retries"),
    ],
)
def test_mistakes_on_the_command_line(flags, part):
    assert_one_sentence(t2aux("serve", *flags, check=False), part)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("nonsense {", "ModelServerConfig .*protobuf"),
        ("", "model_config_list"),
        ('model_config_list { config { name: "x" } }', "model_config_list"),
        ('model_config_list { config { name: "x" base_path: "y" } } more: 1', '"more"'),
    ],
)
def test_mistakes_in_model_config_files(tmp_path, text, part):
    (tmp_path / "file").write_text(text)
    with pytest.raises(SettingError, match=f"{tmp_path / 'file'} .*{part}"):
        configuration.read_models(str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("max_batch_size { value: 4 } allowed_batch_sizes: 8", r"\[8\].* max_batch_size, 4"),
        ("num_batch_threads { value: 0 }", "num_batch_threads .* 0: "),
        ("max_batch_size: 3", "BatchingParameters .*protobuf"),
        ("max_batch_sizes { value: 4 }", '"max_batch_sizes"'),
    ],
)
def test_mistakes_in_batching_files(tmp_path, text, part):
    (tmp_path / "file").write_text(text)
    with pytest.raises(SettingError, match=f"{tmp_path / 'file'}.*{part}"):
        configuration.read_batching(str(tmp_path / "file"), BatchingOptions())


def test_batching_fields_without_effect_are_logged_in_one_line(tmp_path, caplog):
    text = (
        'max_batch_size { value: 4 } thread_pool_name { value: "pool" } '
        "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 2 }"
    )
    path = tmp_path / "file"
    path.write_text(text)
    assert configuration.read_batching(str(path), BatchingOptions()).max_batch_size == 4
    (message,) = caplog.messages
    names = "thread_pool_name, enable_large_batch_splitting, max_execution_batch_size."
    assert re.fullmatch(f"{path} .*: {names}", message)
    caplog.clear()
    path.write_text("max_batch_size { value: 4 } pad_variable_length_inputs: true")
    configuration.read_batching(str(path), BatchingOptions())
    assert caplog.messages == []


def test_version_labels_are_read(tmp_path):
    labels = 'version_labels { key: "stable" value: 3 } version_labels { key: "canary" value: 4 }'
    config = f'config {{ name: "m" base_path: "b" {labels} }}'
    (tmp_path / "file").write_text(f"model_config_list {{ {config} }}")
    (read,) = configuration.read_models(str(tmp_path / "file"))
    assert read.labels == {"stable": 3, "canary": 4}


def test_model_version_policies(tmp_path):
    policies = ("", "latest { num_versions: 2 }", "all {}", "specific { versions: 3 }")
    configs = "".join(
        f'config {{ name: "m{i}" base_path: "b" model_version_policy {{ {policy} }} }}'
        for i, policy in enumerate(policies)
    )
    (tmp_path / "file").write_text(f"model_config_list {{ {configs} }}")
    read = configuration.read_models(str(tmp_path / "file"))
    assert [(c.latest, c.specific) for c in read] == [(1, ()), (2, ()), (1, None), (1, (3,))]


def test_without_the_extra():
    code = (
        "import sys; assert 'aiohttp' not in sys.modules; sys.modules['aiohttp'] = None; "
        "from t2aux.cli.main import main; main()"
    )
    done = python(code, "serve", "--model_base_path=x", check=False)
    assert_one_sentence(done, "pip install 't2aux[serving]'")
