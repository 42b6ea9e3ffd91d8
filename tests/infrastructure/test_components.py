"""Tests of stack code that needs no Pulumi engine: zones, quotas, website, CORS, dashboard, and the tested variants."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin

import pytest
from conftest import VARIANTS
from pydantic.alias_generators import to_camel

from gorggle_gateway import static_files
from infrastructure import network, quota_check
from infrastructure.config import GPU_INSTANCE, StackSettings
from infrastructure.cors import build_content_security_policy, download_cors_rule, upload_cors_rule
from infrastructure.dashboard import build_dashboard_body
from infrastructure.naming import Names
from infrastructure.website import PAGE_FOLDER, list_site_files

ROOT = Path(__file__).resolve().parents[2]
NAMES = Names("test", "123456789012", "us-east-1")


def list_values(field: str) -> set[Any]:
    """Return the values of a boolean or literal setting; nothing for other types."""
    kind = StackSettings.model_fields[field].annotation
    if kind is bool:
        return {True, False}
    return set(get_args(kind)) if get_origin(kind) is Literal else set()


@pytest.mark.parametrize("field", [each for each in StackSettings.model_fields if each != "log_level"])
def test_the_variants_cover_every_value_of_a_setting(field: str) -> None:
    default = StackSettings.model_fields[field].get_default(call_default_factory=True)
    covered = {json.dumps(each[to_camel(field)]) for each in VARIANTS.values() if to_camel(field) in each}
    assert {json.dumps(each) for each in list_values(field)} <= covered | {json.dumps(default)}


def fake_gpu_zones(monkeypatch: pytest.MonkeyPatch, *zones: str) -> None:
    response = SimpleNamespace(locations=list(zones))
    ec2 = SimpleNamespace(get_instance_type_offerings=lambda **_: response)
    monkeypatch.setattr(network, "aws", SimpleNamespace(ec2=ec2))


def test_zones_without_the_gpu_are_excluded(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu_zones(monkeypatch, "us-east-1f", "us-east-1a", "us-east-1c")
    zones = network.find_gpu_zones(StackSettings(), opts=None)  # type: ignore[arg-type]
    assert zones == ["us-east-1a", "us-east-1c"]


def test_a_region_without_the_gpu_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu_zones(monkeypatch)
    with pytest.raises(ValueError, match=r"no zone of this region offers g6.xlarge: change gpuInstanceTypes"):
        network.find_gpu_zones(StackSettings(), opts=None)  # type: ignore[arg-type]


def find_shortages(quotas: dict[tuple[str, str], float], **settings: Any) -> list[str]:
    by_code = {code: value for (_, code), value in quotas.items()}
    return list(quota_check.find_shortages(StackSettings(**settings), by_code.__getitem__))


def test_a_zero_quota_gives_a_warning_with_the_command_to_raise_it() -> None:
    (warning,) = find_shortages({quota_check.ON_DEMAND: 0})
    assert "no instance of g6.xlarge" in warning
    assert "--quota-code L-DB2E81BA --desired-value 8" in warning


def test_a_low_quota_gives_a_warning_with_the_number_of_instances() -> None:
    (warning,) = find_shortages(
        {quota_check.ON_DEMAND: 9}, gpu_instance_types=["g5.2xlarge"], gpu_max_instances=3
    )
    assert "1 of 3 instances of g5.2xlarge" in warning
    assert "--desired-value 24" in warning


def test_a_sufficient_quota_gives_no_warning() -> None:
    assert not find_shortages({quota_check.ON_DEMAND: 8})


def test_spot_instances_have_a_separate_quota() -> None:
    (warning,) = find_shortages({quota_check.SPOT: 0}, gpu_on_demand_percent=0)
    assert "L-3819A6DF" in warning
    both = {quota_check.SPOT: 0.0, quota_check.ON_DEMAND: 0.0}
    assert len(find_shortages(both, gpu_on_demand_percent=50)) == 2


def test_every_allowed_instance_type_has_a_vcpu_count() -> None:
    sizes = GPU_INSTANCE.pattern.rpartition("(")[2].rstrip(")").split("|")
    assert set(sizes) == set(quota_check.VCPUS)


@pytest.mark.parametrize("quota", [RuntimeError("AccessDenied"), 0.0])
def test_a_quota_problem_is_a_warning_and_not_an_error(
    monkeypatch: pytest.MonkeyPatch, quota: RuntimeError | float
) -> None:
    def look_up_quota(**_: Any) -> Any:
        if isinstance(quota, RuntimeError):
            raise quota
        return SimpleNamespace(value=quota)

    warnings: list[str] = []
    service = SimpleNamespace(get_service_quota=look_up_quota)
    monkeypatch.setattr(quota_check, "aws", SimpleNamespace(servicequotas=service))
    monkeypatch.setattr(quota_check.pulumi, "log", SimpleNamespace(warn=warnings.append))
    quota_check.warn_about_quotas(StackSettings(), opts=None)  # type: ignore[arg-type]
    (text,) = warnings
    assert "AccessDenied" in text if isinstance(quota, RuntimeError) else "no instance" in text


def test_the_website_publishes_the_built_page() -> None:
    published = {key: path for path, key in list_site_files(ROOT)}
    assert "index.html" in published
    linked = re.findall(r'(?:src|href)="\./([^"]+)"', published["index.html"].read_text())
    assert linked
    assert set(linked) <= set(published)
    assert [key for key in published if key.startswith("assets/") and key.endswith(".js")]
    assert published["index.html"].parent == static_files.PAGE_DIR, "the gateway must serve the same folder"


def test_a_missing_page_or_an_unknown_file_type_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make web"):
        list(list_site_files(tmp_path))
    page = tmp_path / PAGE_FOLDER
    page.mkdir(parents=True)
    (page / "index.html").write_text("page")
    (page / "notes.md").write_text("notes")
    with pytest.raises(ValueError, match=r"notes\.md has an unknown file type"):
        list(list_site_files(tmp_path))


def parse_policy(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (part.partition(" ") for part in text.split("; "))}


def test_the_website_policy_allows_only_the_api_and_two_buckets() -> None:
    policy = parse_policy(build_content_security_policy("eu-west-1", "videos", "results"))
    api = "https://*.execute-api.eu-west-1.amazonaws.com"
    videos = "https://videos.s3.eu-west-1.amazonaws.com https://videos.s3.amazonaws.com"
    results = videos.replace("videos", "results")
    assert policy["media-src"] == f"'self' blob: {videos}"
    assert policy["connect-src"] == f"'self' {api} {videos} {results}"


def test_website_and_gateway_policies_differ_only_in_addresses() -> None:
    """Both serve the same page, so it needs the same permissions."""
    site = parse_policy(build_content_security_policy("eu-west-1", "videos", "results"))
    gateway = parse_policy(static_files.build_content_security_policy(()))
    assert site.keys() == gateway.keys()
    for name in site.keys() - {"media-src", "connect-src"}:
        assert site[name] == gateway[name], name
    for name in ("media-src", "connect-src"):
        assert site[name].startswith(gateway[name])


def test_cors_rules_allow_downloads_and_uploads_from_the_website() -> None:
    site = ["https://site.example.org"]
    download, upload = download_cors_rule(site), upload_cors_rule(site)
    assert download["allowed_methods"] == ["GET", "HEAD"]
    assert {"range", "if-range"} <= set(download["allowed_headers"])
    assert {"Content-Range", "Accept-Ranges", "Content-Length"} <= set(download["expose_headers"])
    assert upload["allowed_methods"] == ["POST"]
    assert download["allowed_origins"] == upload["allowed_origins"] == site


def test_dashboard_widgets_do_not_overlap_and_are_not_empty() -> None:
    body = build_dashboard_body(
        NAMES,
        functions=["f"],
        queues=["q"],
        api_id="a",
        state_machine_arn="m",
        load_balancer_suffixes=("t", "l"),
        alarm_arns=["x"],
    )
    occupied = set()
    for widget in body["widgets"]:
        cells = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not cells & occupied
        assert max(x for x, _ in cells) < 24
        occupied |= cells
        assert widget["properties"].get("metrics") or widget["properties"]["alarms"]
