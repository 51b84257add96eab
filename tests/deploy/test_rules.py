"""Recording and alerting rules: by promtool, and against the metrics that the gateway really has."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from app.metrics import Metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
DOCS = ROOT / "docs" / "observability.md"


def promtool(*words: str | Path) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_alerts_fire_when_they_should_and_not_before() -> None:
    assert "SUCCESS" in promtool("test", "rules", Path(__file__).with_name("rules.test.yml"))


def test_the_configuration_names_the_rules() -> None:
    assert "SUCCESS: 20 rules found" in promtool("check", "config", RULES.with_name("prometheus.yml"))


def known() -> set[str]:
    """Every series that the gateway shows, by name."""
    names = {"up"}
    for family in Metrics().registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(
            family.type, ("",)
        )
        names |= {family.name + suffix for suffix in suffixes}
    return names


def test_rules_are_about_metrics_that_exist() -> None:
    text = RULES.read_text(encoding="utf-8")
    recorded = set(re.findall(r"record: (\S+)", text))
    used = set(
        re.findall(r"\b(triggerwall[:_][a-z0-9:_]+)", re.sub(r"(?m)^.*(name|alert|summary):.*$", "", text))
    )
    assert len(used) > 10
    assert used - recorded <= known()


def test_every_alert_says_how_grave_it_is_and_is_explained() -> None:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert len(alerts) == 14
    explained = DOCS.read_text(encoding="utf-8")
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert "$labels.instance" in alert["annotations"]["summary"]
        assert alert["alert"] in explained, f"{alert['alert']} is missing in docs/observability.md"


def test_every_metric_is_explained() -> None:
    explained = DOCS.read_text(encoding="utf-8")
    names = {family.name for family in Metrics().registry.collect() if family.name.startswith("triggerwall_")}
    assert {name for name in names if name.removeprefix("triggerwall_") not in explained} == set()
