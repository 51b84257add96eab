"""What is deployed fits the code. Whether it runs is what `deploy/check.sh` tries, with a Docker engine."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
PROXY = ROOT / "deploy" / "proxy" / "haproxy.cfg"
PROMETHEUS = ROOT / "deploy" / "prometheus" / "prometheus.yml"
DEPLOYED = [
    COMPOSE,
    DOCKERFILE,
    ROOT / "deploy" / "compose.test.yml",
    ROOT / "deploy" / "check.sh",
    ROOT / "deploy" / "check-replicas.sh",
    PROMETHEUS,
    PROXY,
]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read(COMPOSE)["services"]
    return found


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: path.name)
def test_every_variable_is_a_setting(path: Path) -> None:
    used = set(re.findall(r"\bTRIGGERWALL_([A-Z_]+)", path.read_text(encoding="utf-8")))
    assert {name.lower() for name in used} <= set(Settings.model_fields)


def test_the_gateway_does_not_start_without_an_admin_key() -> None:
    assert any(
        variable.startswith("TRIGGERWALL_ADMIN_KEY=${TRIGGERWALL_ADMIN_KEY:?")
        for variable in services()["gateway"]["environment"]
    )


@pytest.mark.parametrize("name", sorted(services()))
def test_services_are_confined_and_answer_on_loopback(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"]
    assert all("BIND:-127.0.0.1}" in port for port in service.get("ports", ()))


def test_every_image_is_pinned() -> None:
    images = [service["image"] for service in services().values() if "build" not in service]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert images
    assert all(re.search(r":v?\d", image) for image in images)


def test_the_stand_ins_replace_services_that_exist() -> None:
    assert set(read(ROOT / "deploy" / "compose.test.yml")["services"]) <= set(services())


def test_prometheus_scrapes_the_gateway_where_compose_puts_it() -> None:
    jobs = {job["job_name"]: job for job in read(PROMETHEUS)["scrape_configs"]}
    (found,) = jobs["triggerwall"]["dns_sd_configs"]
    assert (found["names"], found["type"], found["port"]) == (
        ["gateway"],
        "A",
        8000,
    )  # each replica by itself
    assert Settings.model_fields["port"].default == 8000


def test_the_proxy_finds_the_gateways_where_compose_puts_them() -> None:
    text = PROXY.read_text(encoding="utf-8")
    found = re.findall(r"^ +server-template gateway \S+ (\S+) ", text, re.MULTILINE)
    assert found == ["gateway:8000", "gateway:8000"]
    assert f"{PROXY.parent.relative_to(ROOT)}:/usr/local/etc/haproxy:ro" in services()["proxy"]["volumes"][0]
    assert services()["proxy"]["ports"][0].endswith(":8000")
    assert re.search(r"^ +bind :8000$", text, re.MULTILINE)
    for name in re.findall(r"/usr/local/etc/haproxy/(\S+)", text):
        assert (PROXY.parent / name).exists()


def test_haproxy_takes_the_configuration(tmp_path: Path) -> None:
    haproxy = shutil.which("haproxy")
    if haproxy is None:
        pytest.skip("haproxy is not installed")
    here = PROXY.read_text(encoding="utf-8").replace("/usr/local/etc/haproxy", str(PROXY.parent))
    (tmp_path / "haproxy.cfg").write_text(here)
    done = subprocess.run([haproxy, "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_gateway_has_a_port_of_this_machine_and_several_have_free_ones() -> None:
    """Compose takes `127.0.0.1::8000` for any free port; an unset GATEWAY_PORT is 8000."""
    assert services()["gateway"]["ports"] == ["${GATEWAY_BIND:-127.0.0.1}:${GATEWAY_PORT-8000}:8000"]


def test_promtool_takes_the_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([promtool, "check", "config", PROMETHEUS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_gets_every_package_and_nothing_that_is_not_named() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = re.search(r"^packages = \[(.*)\]", pyproject, re.MULTILINE)
    assert packages is not None
    tops = {name.split(".")[0] for name in re.findall(r'"([^"]+)"', packages[1])}
    assert rules[0] == "*"
    assert tops <= {rule[1:] for rule in rules if rule.startswith("!")}


def test_the_image_is_built_from_locked_dependencies() -> None:
    """Every dependency of the service is pinned; all but PyTorch, whose index decides the build, by hash."""
    dockerfile = DOCKERFILE.read_text(encoding="utf-8")
    assert "--require-hashes -r requirements.lock" in dockerfile
    assert "-r requirements-torch.lock" in dockerfile
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==\S+.*\\\n    --hash=sha256:[0-9a-f]{64}", locked, re.MULTILINE)
    assert len(pinned) == len(re.findall(r"^[A-Za-z]", locked, re.MULTILINE))
    torch = re.findall(r"^(\S+)==[\d.]+$", (ROOT / "requirements-torch.lock").read_text(), re.MULTILINE)
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for wanted in map(Requirement, pyproject["project"]["dependencies"]):
        known = {canonicalize_name(name) for name in [*pinned, *torch]}
        assert canonicalize_name(wanted.name) in known, f"{wanted} is not locked: make lock"


def test_the_lock_keeps_the_bounds() -> None:
    text = "".join((ROOT / name).read_text() for name in ("requirements.lock", "requirements-torch.lock"))
    versions = {
        canonicalize_name(name): v for name, v in re.findall(r"^(\S+)==([^\s;]+)", text, re.MULTILINE)
    }
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for wanted in map(Requirement, pyproject["project"]["dependencies"]):
        assert versions[canonicalize_name(wanted.name)] in wanted.specifier, wanted


def test_no_host_is_named_in_the_locks() -> None:
    for name in ("requirements.lock", "requirements-torch.lock"):
        assert "://" not in (ROOT / name).read_text(encoding="utf-8")
