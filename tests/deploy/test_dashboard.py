"""The Grafana dashboard: every query of it is put to a real Prometheus that has scraped a real gateway."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.app.service import Service
from tests.app.tiny import form, pngs, write_bundle

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "triggerwall.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


def asked(expr: str) -> str:
    """As Grafana asks it, with its variables replaced; rates over the few seconds that the test lasts."""
    return expr.replace("$__rate_interval", "30s").replace("$instance", ".+")


class Prometheus:
    """A server with our rules that scrapes one gateway every second."""

    def __init__(self, program: str, folder: Path, gateway: str) -> None:
        text = (ROOT / "deploy" / "prometheus" / "rules.yml").read_text()
        rules = yaml.safe_load(re.sub(r"\[(5m|15m|1h|6h)\]", "[30s]", text))
        (folder / "rules.yml").write_text(yaml.safe_dump(rules))
        target = [{"targets": [gateway.removeprefix("http://")]}]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "triggerwall", "static_configs": target}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.process = subprocess.Popen(
            [program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=error"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def query(self, expr: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expr}, timeout=10)
        assert answer.status_code == 200, f"{expr}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def wait_for(self, expr: str) -> None:
        end = time.monotonic() + 60
        while True:
            try:
                if self.query(expr):
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < end, f"waited in vain for {expr}"
            time.sleep(0.2)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    bundle = write_bundle(tmp_path_factory.mktemp("bundle"))
    data = tmp_path_factory.mktemp("data")
    settings = {"device": "cpu", "alpha": 0.4, "detectors": ["spc"], "decision_flush_ms": 10}
    with Service(bundle=bundle, data_dir=data, **settings) as service:
        assert service.http.post("/classify", files=form(pngs(1))).status_code == 503  # a problem to count
        assert service.http.post("/calibrate", files=form(pngs(40, seed=1))).status_code == 201
        running = Prometheus(program, tmp_path_factory.mktemp("prometheus"), service.url)
        try:
            running.wait_for("triggerwall_calibration_info")
            for seed in range(2, 5):
                assert service.http.post("/classify", files=form(pngs(40, seed=seed))).status_code == 200
                time.sleep(1.1)  # a scrape between them, so that there are rates
            running.wait_for("rate(triggerwall_decisions_recorded_total[30s]) > 0")
            running.wait_for("triggerwall:rejections:ratio15m > 0")
            yield running
        finally:
            running.close()


@pytest.mark.parametrize(("title", "expr"), QUERIES)
def test_a_query_finds_something(prometheus: Prometheus, title: str, expr: str) -> None:
    assert prometheus.query(asked(expr)), f"{title}: nothing for {expr}"


def test_the_dashboard_shows_what_happened(prometheus: Prometheus) -> None:
    shown = {title: prometheus.query(asked(expr)) for title, expr in QUERIES}
    assert {each["metric"]["verdict"] for each in shown["Images by verdict"]} >= {"accepted", "rejected"}
    assert [each["metric"]["mode"] for each in shown["Mode"]] == ["enforce"]
    assert 0 < float(shown["Rejected, 15 min"][0]["value"][1]) < 1
    assert prometheus.query('ALERTS{alertname="TriggerwallHighRejectionRate", alertstate="firing"}') == []


def test_the_variable_and_the_annotations_can_be_asked(prometheus: Prometheus) -> None:
    labels = httpx.get(f"{prometheus.url}/api/v1/label/instance/values?match[]=triggerwall_model_info")
    assert len(labels.json()["data"]) == 1
    assert (
        DASHBOARD["templating"]["list"][0]["query"]["query"]
        == "label_values(triggerwall_model_info, instance)"
    )
    assert prometheus.query(DASHBOARD["annotations"]["list"][0]["expr"]) == []


def test_the_dashboard_asks_the_provisioned_data_source() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    source = sources["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    used = {panel["datasource"]["uid"] for panel in PANELS} | {
        target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]
    }
    assert used == {source["uid"]}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken, panel["title"]
        taken |= cells
