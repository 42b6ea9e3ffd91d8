"""The cost model, and ``gorggle cost``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from gorggle import cli, costs

ROOT = Path(__file__).resolve().parents[2]


def test_a_stack_at_rest_costs_nothing_for_gpus() -> None:
    assert costs.idle_month().parts["GPU instances kept"] == 0
    kept = costs.idle_month(costs.Stack(gpu_min_instances=1))
    assert kept.total - costs.idle_month().total == pytest.approx(730 * (0.8048 + 100 * 0.08 / 730))


def test_more_zones_cost_more_and_nat_takes_the_endpoints_place() -> None:
    one, three = (costs.idle_month(costs.Stack(endpoint_zones=zones)) for zones in (1, 3))
    assert three.total - one.total == pytest.approx(2 * 6 * 0.01 * 730)
    nat = costs.idle_month(costs.Stack(nat=True))
    assert "interface endpoints" not in nat.parts
    assert nat.parts["NAT gateway"] == pytest.approx(36.5)


def test_an_hour_of_video_is_made_of_its_parts() -> None:
    hour = costs.video_hours(1)
    assert hour.parts["Transcribe"] == pytest.approx(1.44)
    assert hour.parts["Rekognition"] == pytest.approx(6.0)
    assert hour.parts["GPU at work"] == pytest.approx(
        0.25 * costs.gpu_per_hour(costs.Stack(), costs.Prices())
    )
    assert hour.total == pytest.approx(sum(hour.parts.values()))


def test_the_server_s_own_ears_and_eyes_cost_gpu_time_alone() -> None:
    own = costs.video_hours(1, costs.Stack(sound="server", faces="server"))
    assert own.parts["Transcribe"] == own.parts["Rekognition"] == 0
    assert own.parts["GPU at work"] == pytest.approx(2 * costs.video_hours(1).parts["GPU at work"])


def test_waking_is_paid_once_however_long_the_video() -> None:
    short, long = costs.video_hours(0.1), costs.video_hours(10)
    assert short.parts["GPU waking and waiting"] == long.parts["GPU waking and waiting"] > 0
    assert costs.video_hours(1, costs.Stack(gpu_min_instances=1)).parts["GPU waking and waiting"] == 0


def test_spot_is_cheaper_and_an_unknown_type_is_refused() -> None:
    prices = costs.Prices()
    spot = costs.gpu_per_hour(costs.Stack(gpu_on_demand_percent=0), prices)
    assert spot < 0.5 * costs.gpu_per_hour(costs.Stack(), prices)
    with pytest.raises(ValueError, match=r"p4d.24xlarge is not known; known are g4dn"):
        costs.gpu_per_hour(costs.Stack(gpu_instance_type="p4d.24xlarge"), prices)


def test_the_command_writes_both_sums(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cost", "--hours", "2", "--gpu", "g4dn.xlarge", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["2 h of video"]["total"] == pytest.approx(
        costs.video_hours(2, costs.Stack(gpu_instance_type="g4dn.xlarge")).total, abs=1e-3
    )
    assert cli.main(["cost", "--sound", "none"]) == 0
    text = capsys.readouterr().out
    assert "a month at rest: $" in text
    assert "Transcribe" not in text


@pytest.mark.parametrize(
    "arguments", [["--hours", "0"], ["--hours", "x"], ["--gpu", "p3"], ["--on-demand-percent", "101"]]
)
def test_what_makes_no_sense_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["cost", *arguments])
    assert ended.value.code == 2
    assert "usage: gorggle cost" in capsys.readouterr().err


def test_the_manual_s_figures_are_the_model_s() -> None:
    manual = (ROOT / "docs" / "aws.md").read_text()
    totals = [float(each) for each in re.findall(r"\*\*total\*\* \| \*\*([\d.]+)\*\*", manual)]
    assert totals == [
        pytest.approx(costs.idle_month().total, abs=0.01),
        pytest.approx(costs.video_hours(1).total, abs=0.01),
    ]
