"""Prometheus' rules and Grafana's dashboard: of metrics that exist, and alerts that come when they should."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from service import errors, refusals  # noqa: F401  all errors are known then
from service.api.operations import AnalysisMetrics
from service.api.state import State
from service.errors import MitosisError
from service.store.analyses import Analyses
from service.store.settings import Settings
from service.store.storage import Storage
from service.worker.broker import Broker
from tests.databases import job_store
from tests.deployment.compose import ROOT
from tests.deployment.programs import program

RULES = ROOT / "docker" / "prometheus" / "rules.yml"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "mitosis.json"
METRIC = re.compile(r"\bmitosis_\w+")


def expressions() -> list[str]:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [rule["expr"] for rule in rules] + [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.fixture
def exposed(tmp_path: Path) -> set[str]:
    """What /metrics names."""
    settings = Settings(data_dir=tmp_path)
    engine, broker = job_store(tmp_path), Broker(settings)
    state = State(settings, engine, Storage(tmp_path), Analyses(engine), broker, None)  # type: ignore[arg-type]
    endings = {"info": "_info"}  # that a kind of metric is exposed with
    names = {metric.name + endings.get(metric.type, "") for metric in AnalysisMetrics(state).collect()}
    broker.close()
    engine.dispose()
    return names


def test_rules_and_dashboard_name_metrics_that_exist(exposed: set[str]) -> None:
    named = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert named == exposed, "and every metric is looked at"


def test_the_codes_of_rules_are_codes_of_errors() -> None:
    def below(kind: type[MitosisError]) -> set[str]:
        return {kind.code}.union(*(below(each) for each in kind.__subclasses__()))

    [codes] = [re.findall(r'code=~"([^"]+)"', expression) for expression in expressions() if "code=~" in expression]
    assert set(codes[0].split("|")) <= below(errors.MitosisError)


def test_prometheus_takes_configuration_and_rules() -> None:
    subprocess.run([program("promtool"), "check", "config", RULES.with_name("prometheus.yml")], check=True)


def test_alerts_come_when_they_should_and_only_then() -> None:
    told = subprocess.run(
        [program("promtool"), "test", "rules", Path(__file__).with_name("rules_test.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr


def test_the_dashboard_reads_the_source_that_is_provisioned() -> None:
    provisioning = ROOT / "docker" / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert {target["datasource"]["uid"] for panel in panels for target in panel["targets"]} == {source["uid"]}
    boxes = [panel["gridPos"] for panel in panels]
    cells = [
        (x, y)
        for box in boxes
        for x in range(box["x"], box["x"] + box["w"])
        for y in range(box["y"], box["y"] + box["h"])
    ]
    assert len(cells) == len(set(cells)), "no panel covers another"
