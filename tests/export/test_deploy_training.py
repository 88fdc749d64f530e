"""The training job for Kubernetes: its parts agree with each other and with `t2aux train`."""

import pathlib
import re

import pytest
import yaml

import t2aux
from t2aux import exit_status
from t2aux.training import cluster
from tests.cli_helpers import t2aux as run_t2aux

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANIFEST = ROOT / "export" / "deploy" / "training.yaml"


@pytest.fixture(scope="module")
def kinds():
    return {document["kind"]: document for document in yaml.safe_load_all(MANIFEST.read_text())}


@pytest.fixture(scope="module")
def pod(kinds):
    return kinds["Job"]["spec"]["template"]


@pytest.fixture(scope="module")
def container(pod):
    (container,) = pod["spec"]["containers"]
    return container


def test_every_worker_knows_who_it_is(kinds, pod, container, monkeypatch):
    job, service = kinds["Job"], kinds["Service"]
    environment = {entry["name"]: entry for entry in container["env"]}
    # Kubernetes replaces $(NAME) of what stands before.
    assert list(environment).index("INDEX") < list(environment).index("TF_CONFIG")
    field = environment["INDEX"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert job["spec"]["completionMode"] == "Indexed"
    count = job["spec"]["completions"]
    assert job["spec"]["parallelism"] == count
    assert pod["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    (port,) = {p["containerPort"] for p in container["ports"]}
    assert [p["port"] for p in service["spec"]["ports"]] == [port]
    for index in range(count):
        value = environment["TF_CONFIG"]["value"].replace("$(INDEX)", str(index))
        monkeypatch.setenv("TF_CONFIG", value)
        nodes = cluster.read()
        assert nodes.number == index
        # The host name of an indexed job's pod, under its service.
        assert nodes.workers == [
            f"{job['metadata']['name']}-{i}.{service['metadata']['name']}:{port}"
            for i in range(count)
        ]


def test_the_exit_statuses_mean_what_the_program_means(kinds, pod):
    spec = kinds["Job"]["spec"]
    # podFailurePolicy asks for it.
    assert pod["spec"]["restartPolicy"] == "Never"
    rules = spec["podFailurePolicy"]["rules"]
    by_status = {
        status: rule["action"]
        for rule in rules
        for status in rule.get("onExitCodes", {}).get("values", [])
    }
    assert by_status == {exit_status.STOPPED: "Ignore", 1: "FailJob"}
    assert {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]} in rules
    # A worker that is late is not waited for by a chief that is done.
    assert spec["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}


def test_parts_of_the_cluster_find_each_other(kinds, pod, container):
    labels = pod["metadata"]["labels"]
    assert kinds["Service"]["spec"]["selector"] == labels
    policy = kinds["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    (rule,) = policy["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": labels}}]
    assert [p["port"] for p in rule["ports"]] == [p["containerPort"] for p in container["ports"]]
    volumes = {v["name"] for v in pod["spec"]["volumes"]}
    assert {m["name"] for m in container["volumeMounts"]} == volumes


def test_it_has_no_privileges_and_writes_only_its_folders(pod, container):
    dockerfile = (ROOT / "Dockerfile").read_text()
    user = int(re.search(r"useradd .*--uid (\d+)", dockerfile)[1])
    security = pod["spec"]["securityContext"]
    assert security["runAsNonRoot"] is True
    assert {security[k] for k in ("runAsUser", "runAsGroup", "fsGroup")} == {user}
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert container["image"] == f"t2aux:{t2aux.__version__}"
    given = dict(re.fullmatch(r"--(\w+)=(.+)", a).groups() for a in container["args"][1:])
    paths = [given["model_dir"], given["data_dir"]]
    paths += [e["value"] for e in container["env"] if e["name"].endswith("_DIR")]
    mounts = [m["mountPath"] for m in container["volumeMounts"]]
    for path in paths:
        assert any(path.startswith(mount + "/") for mount in mounts), path


def test_the_command_is_one(container, tmp_path):
    """Up to the data, which is missing."""
    arguments = [a.replace("/data/", f"{tmp_path}/") for a in container["args"]]
    (tmp_path / "mnist").mkdir()
    done = run_t2aux(*arguments, check=False, TF_CONFIG="")
    assert done.returncode == 1
    assert "t2aux: error: " in done.stderr
    assert f"{tmp_path}/mnist" in done.stderr


def test_values_say_what_they_are_for():
    lines = MANIFEST.read_text().splitlines()
    arguments = [n for n, line in enumerate(lines) if line.strip().startswith("- --")]
    assert len(arguments) == 5
    for number in arguments:
        assert lines[number - 1].strip().startswith("# "), lines[number]
