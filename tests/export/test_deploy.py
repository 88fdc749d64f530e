"""The configuration for TensorFlow Serving: it parses, and its parts agree with each other."""

import pathlib
import re
import signal
import subprocess
import urllib.request
from concurrent import futures

import numpy as np
import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from t2aux import tf_serving
from t2aux.client import transport
from t2aux.client.remote import RemoteClassifier
from t2aux.export.runtimes import CheckpointClassifier
from t2aux.serving import configuration
from t2aux.serving.batching import BatchingOptions
from tests import small_exports
from tests.cli_helpers import fork_server

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "export" / "deploy"
CONFIGS = ("models.config", "batching.config", "monitoring.config")
# Those of tensorflow_model_server that are used, as its main.cc names them.
FLAGS = {
    "port",
    "rest_api_port",
    "rest_api_timeout_in_ms",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
    "file_system_poll_wait_seconds",
    "enable_model_warmup",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
    "grpc_channel_arguments",
}


def read_yaml(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


@pytest.fixture(scope="module")
def service():
    (document,) = read_yaml("compose.yaml")
    (service,) = document["services"].values()
    return service


@pytest.fixture(scope="module")
def kinds():
    return {document["kind"]: document for document in read_yaml("kubernetes.yaml")}


@pytest.fixture(scope="module")
def pod(kinds):
    return kinds["Deployment"]["spec"]["template"]


@pytest.fixture(scope="module")
def container(pod):
    (container,) = pod["spec"]["containers"]
    return container


@pytest.fixture(scope="module")
def model():
    text = (DEPLOY / "models.config").read_text()
    message = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (config,) = message.model_config_list.config
    return config


def flags(arguments):
    return dict(re.fullmatch(r"--(\w+)=(.+)", argument).groups() for argument in arguments)


def test_the_model(model):
    assert model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions == 1
    (ours,) = configuration.read_models(str(DEPLOY / "models.config"))
    assert (ours.name, str(ours.base_path)) == (model.name, model.base_path)


def test_batches_are_those_that_are_warmed_up(service, container):
    path = DEPLOY / "batching.config"
    # Without defaults: all that is set comes from the file.
    options = configuration.read_batching(str(path), BatchingOptions(True, 0, 0, 0, 0, ()))
    assert options.allowed_batch_sizes == tf_serving.BATCH_SIZES
    assert options.max_batch_size == tf_serving.BATCH_SIZES[-1]
    assert re.search(r"^pad_variable_length_inputs: true$", path.read_text(), re.MULTILINE)
    cores = str(options.num_batch_threads)
    assert service["deploy"]["resources"]["limits"]["cpus"] == cores
    assert container["resources"]["limits"]["cpu"] == cores


def test_both_run_the_same(service, container):
    of_compose, of_kubernetes = flags(service["command"]), flags(container["args"])
    assert set(of_compose) | set(of_kubernetes) <= FLAGS
    own = {"model_config_file_poll_wait_seconds", "grpc_channel_arguments"}
    assert {k: v for k, v in of_compose.items() if k not in own} == {
        k: v for k, v in of_kubernetes.items() if k not in own
    }
    assert service["entrypoint"] == container["command"]
    assert service["image"] == container["image"]


def test_the_image_is_pinned_to_the_tensorflow_that_exports(service):
    name, version = service["image"].split(":")
    assert name == "tensorflow/serving"
    constraints = (ROOT / "constraints.txt").read_text()
    pinned = re.search(r"^tensorflow==(\S+)", constraints, re.MULTILINE)[1]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    # Patches differ between the two.
    assert version.split(".")[:2] == pinned.split(".")[:2]


def test_files_are_mounted_where_the_flags_look_for_them(service, container, pod, model):
    given = flags(service["command"])
    wanted = {f"/config/{name}": f"./{name}" for name in CONFIGS}
    assert {given[f] for f in given if f.endswith("_file")} == set(wanted)
    mounts = {m["target"]: m for m in service["volumes"]}
    assert {t: m["source"] for t, m in mounts.items() if t in wanted} == wanted
    assert all(mount["read_only"] for mount in mounts.values())
    assert set(mounts) - set(wanted) == {model.base_path}
    assert mounts[model.base_path]["source"].startswith("${EXPORT_DIR:?")

    volumes = {v["name"]: v for v in pod["spec"]["volumes"]}
    by_path = {m["mountPath"]: m for m in container["volumeMounts"]}
    assert set(by_path) == {model.base_path, "/config", "/tmp"}
    assert {m["name"] for m in by_path.values()} == set(volumes)
    assert by_path[model.base_path]["readOnly"]
    assert by_path["/config"]["readOnly"]
    (kustomization,) = read_yaml("kustomization.yaml")
    (generated,) = kustomization["configMapGenerator"]
    assert generated["name"] == volumes[by_path["/config"]["name"]]["configMap"]["name"]
    assert tuple(generated["files"]) == CONFIGS
    assert kustomization["resources"] == ["kubernetes.yaml"]
    for name in (*CONFIGS, *kustomization["resources"]):
        assert (DEPLOY / name).is_file()


def test_it_has_no_privileges_and_writes_nothing(service, container, pod):
    assert service["user"] == "65534:65534"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    security = pod["spec"]["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == 65534
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    for port in service["ports"]:
        assert port.startswith("127.0.0.1:")


def test_the_model_card_opens_no_port_to_others():
    card = (ROOT / "export" / "card.md.jinja").read_text()
    assert re.findall(r"docker run .*?-p (\S+)", card) == ["127.0.0.1:8501:8501"]


def test_ports_probes_and_metrics_agree(service, container, pod, kinds, model):
    given = flags(service["command"])
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert ports == {"grpc": int(given["port"]), "rest": int(given["rest_api_port"])}
    assert sorted(service["ports"]) == [f"127.0.0.1:{p}:{p}" for p in sorted(ports.values())]
    for port in kinds["Service"]["spec"]["ports"]:
        assert port["port"] == ports[port["targetPort"]]
    for probe in ("startupProbe", "readinessProbe"):
        requested = container[probe]["httpGet"]
        assert requested == {"path": f"/v1/models/{model.name}/metadata", "port": "rest"}
    assert container["livenessProbe"]["tcpSocket"] == {"port": "grpc"}
    check = service["healthcheck"]["test"][-1]
    assert f"GET /v1/models/{model.name} " in check
    assert f"/{given['rest_api_port']} " in check
    path = configuration.read_monitoring_path(str(DEPLOY / "monitoring.config"))
    annotations = pod["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == path
    assert annotations["prometheus.io/port"] == given["rest_api_port"]


def test_parts_of_the_cluster_find_each_other(kinds, pod):
    labels = pod["metadata"]["labels"]
    assert kinds["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert kinds["Service"]["spec"]["selector"] == labels
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert (
        kinds["PodDisruptionBudget"]["spec"]["minAvailable"]
        < kinds["Deployment"]["spec"]["replicas"]
    )
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    (container,) = pod["spec"]["containers"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause + 30 < grace


def has_comment(lines, number):
    """Whether a line stands under a comment, with lines of its like and openings between."""
    mark = lines[number].strip()[:4]
    while lines[number].strip().startswith(mark) or lines[number].endswith("{"):
        number -= 1
    return lines[number].strip().startswith("#")


@pytest.mark.parametrize("name", [*CONFIGS, "compose.yaml", "kubernetes.yaml"])
def test_values_say_what_they_are_for(name):
    """Every flag, and every value of TensorFlow Serving's own files."""
    lines = (DEPLOY / name).read_text().splitlines()
    value = r"- --\w+=" if name.endswith(".yaml") else r"\w+(: (?!\"tensorflow\"$)| \{ value)"
    values = [n for n, line in enumerate(lines) if re.match(value, line.strip())]
    assert len(values) >= 2
    for number in values:
        assert has_comment(lines, number), lines[number]


def test_the_readme_names_every_file():
    readme = (DEPLOY / "README.md").read_text()
    for path in DEPLOY.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in readme, path


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """`t2aux serve` with the three files; the classifier that it serves, and its ports."""
    folder = tmp_path_factory.mktemp("deploy")
    base = folder / "exports"
    base.mkdir()
    classifier = small_exports.write(base / "1", small_exports.VECTORS, ("saved_model",))
    models = (DEPLOY / "models.config").read_text().replace("/models/classifier", str(base))
    (folder / "models.config").write_text(models)
    arguments = [
        f"--model_config_file={folder / 'models.config'}",
        f"--batching_parameters_file={DEPLOY / 'batching.config'}",
        f"--monitoring_config_file={DEPLOY / 'monitoring.config'}",
        "--port=0",
        "--rest_api_port=0",
    ]
    process = fork_server().start(folder / "log", "serve", *arguments)
    try:
        line = r"gRPC at 127.0.0.1:(\d+), REST at http://127.0.0.1:(\d+)/"
        process.wait_until(lambda: re.search(line, process.stderr))
        yield classifier, *map(int, re.search(line, process.stderr).groups())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def test_requests_of_all_lengths_share_batches_with_these_files(running):
    classifier, port, rest_port = running
    local = CheckpointClassifier(classifier)
    rng = np.random.default_rng(0)
    sequences = [rng.random((n, 2)).astype(np.float32) for n in rng.integers(1, 40, 64)]
    ways = [transport.connect(f"grpc://127.0.0.1:{port}") for _ in range(16)]
    clients = [RemoteClassifier(way, "classifier") for way in ways]
    with futures.ThreadPoolExecutor(len(clients)) as pool:
        chosen = [clients[i % len(clients)] for i in range(len(sequences))]
        answers = list(pool.map(lambda c, s: c.probabilities(s), chosen, sequences))
    for way in ways:
        way.close()
    for sequence, answer in zip(sequences, answers, strict=True):
        np.testing.assert_allclose(answer, local.probabilities(sequence), atol=1e-6)
    path = configuration.read_monitoring_path(str(DEPLOY / "monitoring.config"))
    with urllib.request.urlopen(f"http://127.0.0.1:{rest_port}{path}") as page:
        assert b"request_count" in page.read()


@pytest.mark.parametrize(
    ("state", "code", "status"), [("AVAILABLE", "OK", 0), ("END", "UNAVAILABLE", 1)]
)
def test_the_health_check_knows_available_from_unavailable(service, state, code, status):
    *_, script = service["healthcheck"]["test"]
    pattern = script.rpartition("&&")[2].replace("<&3", "")
    # As TensorFlow Serving writes it.
    answer = f"""HTTP/1.1 200 OK\r\n\r\n{{
 "model_version_status": [
  {{
   "version": "1",
   "state": "{state}",
   "status": {{
    "error_code": "{code}",
    "error_message": ""
   }}
  }}
 ]
}}
"""
    done = subprocess.run(["bash", "-c", pattern], input=answer, text=True, timeout=20)
    assert done.returncode == status


def test_the_health_check_shows_whether_a_version_exists(running, service):
    *_, rest_port = running
    kind, shell, option, script = service["healthcheck"]["test"]
    assert (kind, shell, option) == ("CMD", "bash", "-c")

    def status(changed):
        return subprocess.run([shell, option, changed], timeout=120, capture_output=True).returncode

    script = script.replace("/8501 ", f"/{rest_port} ")
    assert status(script) == 0
    assert status(script.replace("models/classifier", "models/other")) != 0
    assert status(script.replace(f"/{rest_port} ", "/1 ")) != 0
