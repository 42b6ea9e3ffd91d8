"""The cost model, and ``gorggle cost``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gorggle.cli import main
from gorggle_lambdas.aws_costs import cost_model
from gorggle_lambdas.aws_costs.prices import (
    AS_OF,
    COMPARED_ON,
    INSTANCES,
    Prices,
    PricesError,
    list_metadata,
    parse_prices,
)

ROOT = Path(__file__).resolve().parents[2]


def test_an_idle_stack_has_no_gpu_cost() -> None:
    assert cost_model.estimate_idle_month().parts["gpu_kept"] == 0
    kept = cost_model.estimate_idle_month(cost_model.StackConfig(gpu_min_instances=1))
    assert kept.total - cost_model.estimate_idle_month().total == pytest.approx(
        730 * (0.8048 + 100 * 0.08 / 730)
    )


def test_zones_increase_endpoint_cost_and_a_nat_gateway_replaces_endpoints() -> None:
    one, three = (
        cost_model.estimate_idle_month(cost_model.StackConfig(endpoint_zone_count=zones)) for zones in (1, 3)
    )
    assert three.total - one.total == pytest.approx(2 * 6 * 0.01 * 730)
    nat = cost_model.estimate_idle_month(cost_model.StackConfig(nat_gateway=True))
    assert "endpoints" not in nat.parts
    assert nat.parts["nat"] == pytest.approx(36.5)


def test_an_hour_of_video_is_the_sum_of_its_parts() -> None:
    hour = cost_model.estimate_video_hours(1)
    assert hour.parts["transcribe"] == pytest.approx(1.44)
    assert hour.parts["rekognition"] == pytest.approx(6.0)
    assert hour.parts["gpu"] == pytest.approx(
        0.25 * cost_model.compute_gpu_hourly_cost(cost_model.StackConfig(), Prices())
    )
    assert hour.total == pytest.approx(sum(hour.parts.values()))


def test_server_engines_cost_gpu_time_only() -> None:
    server_engines = cost_model.estimate_video_hours(
        1, cost_model.StackConfig(audio_engine="server", face_engine="server")
    )
    assert server_engines.parts["transcribe"] == server_engines.parts["rekognition"] == 0
    assert server_engines.parts["gpu"] == pytest.approx(2 * cost_model.estimate_video_hours(1).parts["gpu"])


def test_the_fleet_start_is_billed_once() -> None:
    short, long = cost_model.estimate_video_hours(0.1), cost_model.estimate_video_hours(10)
    assert short.parts["gpu_waiting"] == long.parts["gpu_waiting"] > 0
    assert (
        cost_model.estimate_video_hours(1, cost_model.StackConfig(gpu_min_instances=1)).parts["gpu_waiting"]
        == 0
    )


def test_spot_is_cheaper_and_an_unknown_type_is_rejected() -> None:
    prices = Prices()
    spot = cost_model.compute_gpu_hourly_cost(cost_model.StackConfig(gpu_on_demand_percent=0), prices)
    assert spot < 0.5 * cost_model.compute_gpu_hourly_cost(cost_model.StackConfig(), prices)
    exotic = cost_model.StackConfig(gpu_instance_type="p4d.24xlarge", gpu_volume_size_gib=0)
    with pytest.raises(ValueError, match=r"no price for p4d.24xlarge \(known: g4dn"):
        cost_model.compute_gpu_hourly_cost(exotic, prices)
    assert (
        cost_model.compute_gpu_hourly_cost(exotic, parse_prices('{"instances": {"p4d.24xlarge": 32.8}}'))
        == 32.8
    )


def test_the_command_prints_both_estimates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["cost", "--hours", "2", "--gpu", "g4dn.xlarge", "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["2 h of video"]["total"] == pytest.approx(
        cost_model.estimate_video_hours(2, cost_model.StackConfig(gpu_instance_type="g4dn.xlarge")).total,
        abs=1e-3,
    )
    assert main.main(["cost", "--audio", "none"]) == 0
    text = capsys.readouterr().out
    assert "idle month: $" in text
    assert "Transcribe" not in text
    assert AS_OF in text


def test_a_price_file_overrides_list_prices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    price_file = tmp_path / "mine.json"
    price_file.write_text(json.dumps({"transcribe_per_min": 1.0, "instances": {"g6.xlarge": 9.0}}))
    assert main.main(["cost", "--json", "--prices", str(price_file)]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["1 h of video"]["parts"]["transcribe"] == 60
    assert output["1 h of video"]["parts"]["gpu"] == pytest.approx(0.25 * (9 + 100 * 0.08 / 730), abs=1e-4)
    assert output["prices"]["rekognition_per_min"] == Prices().rekognition_per_min
    assert output["prices"]["instances"]["g5.xlarge"] == INSTANCES["g5.xlarge"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("3", "the prices contain 3"),
        ('{"colour": 1}', "the prices contain colour"),
        ('{"nat_per_h": -1}', "nat_per_h is -1"),
        ('{"nat_per_h": true}', "nat_per_h is True"),
        ('{"nat_per_h": Infinity}', "nat_per_h is inf"),
        ('{"instances": 3}', "instances is 3"),
    ],
)
def test_invalid_prices_are_rejected(text: str, message: str) -> None:
    with pytest.raises(PricesError, match=message):
        parse_prices(text)


def test_every_price_has_a_source_and_date() -> None:
    assert re.fullmatch(r"20\d\d-\d\d", AS_OF)
    assert AS_OF < COMPARED_ON
    assert all(list_metadata("compared").values())
    for name, source in list_metadata("source").items():
        assert source.startswith(("https://aws.amazon.com/", "an assumption")), name
    assert AS_OF in (ROOT / "docs" / "aws.md").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--hours", "0"],
        ["--hours", "x"],
        ["--gpu", "p3"],
        ["--on-demand-percent", "101"],
        ["--prices", "no-such-file.json"],
    ],
)
def test_invalid_arguments_are_rejected(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["cost", *arguments])
    assert caught.value.code == 2
    assert "usage: gorggle cost" in capsys.readouterr().err


def test_the_documented_totals_match_the_model() -> None:
    manual = (ROOT / "docs" / "aws.md").read_text()
    totals = [float(each) for each in re.findall(r"\*\*total\*\* \| \*\*([\d.]+)\*\*", manual)]
    assert totals == [
        pytest.approx(cost_model.estimate_idle_month().total, abs=0.01),
        pytest.approx(cost_model.estimate_video_hours(1).total, abs=0.01),
    ]
