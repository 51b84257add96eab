"""What deploy/kubernetes describes is valid, and its parts fit each other and the gateway.

No cluster is here. Kubernetes's own kinds are checked against its schemas, as strictly as they allow; so are
the parts of KServe's InferenceService that are a Pod's. The rest of that is checked against KServe's own
models, where they are installed.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.gateway import Gateway
from app.main import create_app
from app.settings import Settings
from models.bundle import read_spec
from tests.app.conftest import bundle, make_settings  # noqa: F401  (fixtures)
from tests.peers import PATIENT, python_with

ROOT = Path(__file__).parents[2] / "deploy" / "kubernetes"
FOLDERS = ("base", "kserve")
VERSIONS = (
    "1.30",
    "1.37",
)  # of Kubernetes: the oldest that `unhealthyPodEvictionPolicy` and the rest are in, and the newest
SECRET = {"triggerwall": {"admin-key", "database-url"}}  # what the operator makes: see docs/scale.md
Resource = dict[str, Any]


def render(folder: str) -> list[Resource]:
    """What kustomize would make of `folder`, but for the hashes that it adds to names."""
    place = ROOT / folder
    listed = yaml.safe_load((place / "kustomization.yaml").read_text(encoding="utf-8"))
    found = [
        resource
        for name in listed["resources"]
        for resource in yaml.safe_load_all((place / name).read_text(encoding="utf-8"))
    ]
    for each in listed.get("configMapGenerator", []):
        data = dict(line.split("=", 1) for line in each.get("literals", []))
        data |= {
            Path(name).name: (place / name).read_text(encoding="utf-8") for name in each.get("files", [])
        }
        about = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": each["name"]}}
        found.append({**about, "data": data})
    for image in listed["images"]:
        for pod in map(pod_of, found):
            for container in pod["containers"] if pod else ():
                if container["image"] == image["name"]:
                    container["image"] = f"{image['newName']}:{image['newTag']}"
    return found


def pod_of(resource: Resource) -> Resource | None:
    """The Pod's part of what makes gateways."""
    if resource["kind"] == "Deployment":
        found: Resource = resource["spec"]["template"]["spec"]
        return found
    return resource["spec"]["transformer"] if resource["kind"] == "InferenceService" else None


def the(folder: str, kind: str, name: str | None = None) -> Resource:
    (found,) = [
        each for each in render(folder) if each["kind"] == kind and name in (None, each["metadata"]["name"])
    ]
    return found


def gateway_of(folder: str) -> tuple[Resource, Resource]:
    """The Pod that gateways run in, and its one container."""
    (pod,) = filter(None, map(pod_of, render(folder)))
    (container,) = pod["containers"]
    return pod, container


EACH_FOLDER = pytest.mark.parametrize("folder", FOLDERS)


@pytest.mark.parametrize("version", VERSIONS)
@EACH_FOLDER
def test_kubernetes_knows_every_field(folder: str, version: str) -> None:
    checked = [
        kubernetes_validate.validate(resource, version, strict=True)
        for resource in render(folder)
        if resource["kind"] != "InferenceService"
    ]
    assert len(checked) == {"base": 7, "kserve": 3}[folder]


def test_a_field_that_is_none_is_found() -> None:
    wrong = the("base", "Deployment")
    wrong["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


KSERVES_OWN = ("minReplicas", "maxReplicas", "timeout")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_transformer_is_a_pod(version: str) -> None:
    pod, _ = gateway_of("kserve")
    spec = {name: value for name, value in pod.items() if name not in KSERVES_OWN}
    assert len(spec) == len(pod) - len(KSERVES_OWN)
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    kubernetes_validate.validate(whole, version, strict=True)


@PATIENT
def test_kserve_knows_every_field() -> None:
    python = python_with("kserve", "kserve==0.21.0")
    asked = json.dumps(the("kserve", "InferenceService"))
    script = Path(__file__).with_name("kserve_fields.py")
    ran = subprocess.run(
        [python, script], input=asked, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout.splitlines()[-1])
    assert said["unknown"] == []
    assert said["known"] >= 40


@EACH_FOLDER
def test_kustomize_makes_the_same(folder: str) -> None:
    program = shutil.which("kustomize") or shutil.which("kubectl")
    if program is None:
        pytest.skip("neither kustomize nor kubectl is installed")
    command = [program, "build"] if program.endswith("kustomize") else [program, "kustomize"]
    done = subprocess.run([*command, ROOT / folder], capture_output=True, text=True, check=False)
    if done.returncode and "unknown field" in done.stderr:
        pytest.skip(f"this kustomize is too old: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    made = {each["kind"] + each["metadata"]["name"]: each for each in yaml.safe_load_all(done.stdout)}
    hashed = {
        name.rpartition("-")[0]: name.removeprefix("ConfigMap")
        for name in made
        if name.startswith("ConfigMap")
    }
    for each in render(folder):
        key = each["kind"] + each["metadata"]["name"]
        text = json.dumps(made[key if key in made else "ConfigMap" + hashed[key]])
        for name, full in hashed.items():
            text = text.replace(full, name.removeprefix("ConfigMap"))
        assert json.loads(text) == each


# --- whether the parts fit each other ----------------------------------------------------------------


@EACH_FOLDER
def test_what_is_referred_to_is_there(folder: str) -> None:
    maps = {each["metadata"]["name"] for each in render(folder) if each["kind"] == "ConfigMap"}
    pod, container = gateway_of(folder)
    named = {each["configMapRef"]["name"] for each in container["envFrom"]}
    named |= {each["configMap"]["name"] for each in pod["volumes"] if "configMap" in each}
    assert named == maps
    secrets = [each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each]
    assert {(each["name"], each["key"]) for each in secrets} == {(s, k) for s in SECRET for k in SECRET[s]}
    mounted = {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in pod["volumes"]}


@EACH_FOLDER
def test_no_secret_is_in_the_repository(folder: str) -> None:
    assert "Secret" not in {each["kind"] for each in render(folder)}


def test_selectors_select_the_gateways() -> None:
    deployment = the("base", "Deployment")
    template = deployment["spec"]["template"]
    (spread,) = template["spec"]["topologySpreadConstraints"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        the("base", "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        the("base", "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        the("base", "Service", "triggerwall")["spec"]["selector"],
        the("base", "Service", "triggerwall-admin")["spec"]["selector"],
        spread["labelSelector"]["matchLabels"],
    ]
    assert all(selectors)
    assert [s for s in selectors if not s.items() <= template["metadata"]["labels"].items()] == []
    target = the("base", "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"]  # or each `kubectl apply` would undo the autoscaler


def test_the_predictor_answers_the_transformer_alone() -> None:
    """By the labels that KServe gives its Pods."""
    name, policy = (
        the("kserve", "InferenceService")["metadata"]["name"],
        the("kserve", "NetworkPolicy")["spec"],
    )
    (rule,) = policy["ingress"]
    (sender,) = rule["from"]
    for selector, component in ((policy["podSelector"], "predictor"), (sender["podSelector"], "transformer")):
        assert selector["matchLabels"] == {"serving.kserve.io/inferenceservice": name, "component": component}


def ports_named(resource: Any) -> Iterator[str]:
    """Every port that is given by its name, wherever it stands."""
    if isinstance(resource, list):
        for each in resource:
            yield from ports_named(each)
    elif isinstance(resource, Mapping):
        for name, value in resource.items():
            if name in ("port", "targetPort") and isinstance(value, str):
                yield value
            yield from ports_named(value)


def test_ports_that_are_named_exist() -> None:
    _, container = gateway_of("base")
    known = {each["name"] for each in container["ports"]}
    used = set(ports_named([each for each in render("base") if each["kind"] != "ConfigMap"]))
    assert used == known == {"http", "admin"}


# --- whether they fit the gateway ------------------------------------------------------------------------


def settings_of(folder: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As the container would read them."""
    for name in [name for name in os.environ if name.startswith("TRIGGERWALL_")]:
        monkeypatch.delenv(name)
    _, container = gateway_of(folder)
    given = {
        name: value
        for each in container["envFrom"]
        for name, value in the(folder, "ConfigMap", each["configMapRef"]["name"])["data"].items()
    }
    given |= {each["name"]: each.get("value", "postgresql://u:p@h/d") for each in container["env"]}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
        assert (
            not name.startswith("TRIGGERWALL_")
            or name[len("TRIGGERWALL_") :].lower() in Settings.model_fields
        )
    arguments = (
        [*container.get("args", ()), *container.get("command", [""])[-2].split()]
        if folder == "kserve"
        else container["args"]
    )
    host = arguments[arguments.index("--host") + 1]
    port = arguments[arguments.index("--port") + 1] if "--port" in arguments else "8000"
    return Settings(host=host, port=int(port))


@EACH_FOLDER
def test_the_settings_are_settings(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, (pod, container) = settings_of(folder, monkeypatch), gateway_of(folder)
    assert settings.database_url is not None
    assert settings.admin_key is not None
    assert settings.stop_notice_s < settings.stop_timeout_s < pod["terminationGracePeriodSeconds"]
    assert not settings.quarantine  # no gateway reaches the images that another one has in its /data
    served = {each["containerPort"] for each in container["ports"]}
    assert served == {settings.port} | ({settings.admin_port} if settings.admin_port else set())
    assert settings.host == "0.0.0.0"
    assert "/data" in {each["mountPath"] for each in container["volumeMounts"]}


@EACH_FOLDER
def test_probes_ask_paths_that_are_there(folder: str, make_settings: Any) -> None:  # noqa: F811
    app = create_app(make_settings())
    gateway: Gateway = app.state.gateway
    _, container = gateway_of(folder)
    probes = {
        name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert {name: each["path"] for name, each in probes.items()} == {
        "startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz",
    }  # fmt: skip
    ports = {name for each in container["ports"] for name in (each["name"], each["containerPort"])}
    assert {each["port"] for each in probes.values()} <= ports
    paths = app.openapi()["paths"]
    assert {each["path"] for each in probes.values()} <= set(paths)
    gateway.database.close()


def test_the_autoscaler_and_the_adapter_read_a_metric_that_is_there(make_settings: Any) -> None:  # noqa: F811
    app = create_app(make_settings())
    gateway: Gateway = app.state.gateway
    (metric,) = the("base", "HorizontalPodAutoscaler")["spec"]["metrics"]
    name, rows = metric["pods"]["metric"]["name"], int(metric["pods"]["target"]["averageValue"])
    text, _ = gateway.metrics.exposition("")
    assert f"\n{name} " in text.decode()
    assert rows == 2 * Settings().batch_rows < Settings().queue_rows
    (rule,) = yaml.safe_load((ROOT / "prometheus-adapter.yaml").read_text(encoding="utf-8"))["rules"][
        "custom"
    ]
    assert rule["name"]["as"] == name
    annotations = the("base", "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == "/metrics"
    assert annotations["prometheus.io/port"] == "8001"  # callers' port does not show them
    gateway.database.close()


@EACH_FOLDER
def test_gateways_are_confined(folder: str) -> None:
    pod, container = gateway_of(folder)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001  # that of the image
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert container["image"].partition(":")[2]


# --- the transformer ----------------------------------------------------------------------------------------

INJECTED = ["--model_name", "digits", "--predictor_host", "digits-predictor.shop", "--http_port", "8080"]
"""What KServe appends to a transformer's arguments (pkg/apis/serving/v1beta1/transformer_custom.go)."""


@pytest.mark.parametrize(
    ("arguments", "given", "asked"),
    [
        (INJECTED, None, "http://digits-predictor.shop"),
        (["--predictor_host=elsewhere:8080"], None, "http://elsewhere:8080"),
        (INJECTED, "http://digits-predictor.shop:8080", "http://digits-predictor.shop:8080"),
    ],
)
def test_the_transformer_asks_the_predictor_that_kserve_names(
    tmp_path: Path, arguments: list[str], given: str | None, asked: str
) -> None:
    ran = transform(tmp_path, arguments, given)
    assert ran.stdout.splitlines() == [asked, "serve --host 0.0.0.0 --port 8080"], ran.stderr


def test_without_a_predictor_it_does_not_start(tmp_path: Path) -> None:
    ran = transform(tmp_path, ["--model_name", "digits"], None)
    assert ran.returncode != 0
    assert "KServe names no predictor" in ran.stderr


def transform(folder: Path, arguments: list[str], url: str | None) -> subprocess.CompletedProcess[str]:
    """Run the container's command where `triggerwall` only says how it was called."""
    program = folder / "triggerwall"
    program.write_text('#!/bin/sh\necho "$TRIGGERWALL_REMOTE_URL"\necho "$*"\n')
    program.chmod(0o755)
    _, container = gateway_of("kserve")
    variables = {"PATH": f"{folder}:{os.environ['PATH']}", **({"TRIGGERWALL_REMOTE_URL": url} if url else {})}
    return subprocess.run(
        [*container["command"], *arguments], env=variables, capture_output=True, text=True, check=False
    )


def test_the_transformer_s_bundle_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients ask it as the model that they asked before."""
    found = read_spec(ROOT / "kserve" / "bundle")
    service = the("kserve", "InferenceService")
    assert found.name == service["metadata"]["name"]
    assert found.backend == "remote"
    settings = settings_of("kserve", monkeypatch)
    assert settings.detectors == ("profile", "spc")  # what probabilities suffice for
    mounted = {each["name"]: each["mountPath"] for each in gateway_of("kserve")[1]["volumeMounts"]}
    assert Path(mounted["bundle"]) == settings.bundle
