"""Parts of the stack that need no engine: zones, the site's files, the dashboard, and which stacks are tried."""

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


def values_of(field: str) -> set[Any]:
    """What a setting of few values can be."""
    kind = StackSettings.model_fields[field].annotation
    if kind is bool:
        return {True, False}
    return set(get_args(kind)) if get_origin(kind) is Literal else set()


@pytest.mark.parametrize("field", [each for each in StackSettings.model_fields if each != "log_level"])
def test_every_value_that_a_setting_can_have_is_tried_in_a_stack(field: str) -> None:
    default = StackSettings.model_fields[field].get_default(call_default_factory=True)
    tried = {json.dumps(each[to_camel(field)]) for each in VARIANTS.values() if to_camel(field) in each}
    assert {json.dumps(each) for each in values_of(field)} <= tried | {json.dumps(default)}


def offers(monkeypatch: pytest.MonkeyPatch, *zones: str) -> None:
    answer = SimpleNamespace(locations=list(zones))
    ec2 = SimpleNamespace(get_instance_type_offerings=lambda **_: answer)
    monkeypatch.setattr(network, "aws", SimpleNamespace(ec2=ec2))


def test_zones_are_those_that_have_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    offers(monkeypatch, "us-east-1f", "us-east-1a", "us-east-1c")
    found = network.find_gpu_zones(StackSettings(), opts=None)  # type: ignore[arg-type]
    assert found == ["us-east-1a", "us-east-1c"]


def test_a_region_without_the_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    offers(monkeypatch)
    with pytest.raises(ValueError, match=r"no zone of this region offers g6.xlarge: change gpuInstanceTypes"):
        network.find_gpu_zones(StackSettings(), opts=None)  # type: ignore[arg-type]


def shortages(allowed: dict[tuple[str, str], float], **settings: Any) -> list[str]:
    by_code = {code: value for (_, code), value in allowed.items()}
    return list(quota_check.find_shortages(StackSettings(**settings), by_code.__getitem__))


def test_an_account_that_may_run_no_gpu_gets_the_command_to_ask_for_more() -> None:
    (warning,) = shortages({quota_check.ON_DEMAND: 0})
    assert "no instance of g6.xlarge" in warning
    assert "--quota-code L-DB2E81BA --desired-value 8" in warning


def test_an_account_that_may_run_fewer_instances_than_are_set_gets_the_number() -> None:
    (warning,) = shortages({quota_check.ON_DEMAND: 9}, gpu_instance_types=["g5.2xlarge"], gpu_max_instances=3)
    assert "1 of 3 instances of g5.2xlarge" in warning
    assert "--desired-value 24" in warning


def test_a_quota_that_is_enough_is_not_spoken_of() -> None:
    assert not shortages({quota_check.ON_DEMAND: 8})


def test_spot_instances_have_a_quota_of_their_own() -> None:
    (warning,) = shortages({quota_check.SPOT: 0}, gpu_on_demand_percent=0)
    assert "L-3819A6DF" in warning
    both = {quota_check.SPOT: 0.0, quota_check.ON_DEMAND: 0.0}
    assert len(shortages(both, gpu_on_demand_percent=50)) == 2


def test_every_instance_that_may_be_set_has_a_known_number_of_processors() -> None:
    sizes = GPU_INSTANCE.pattern.rpartition("(")[2].rstrip(")").split("|")
    assert set(sizes) == set(quota_check.VCPUS)


@pytest.mark.parametrize("answer", [RuntimeError("AccessDenied"), 0.0])
def test_what_the_quotas_say_is_a_warning_and_no_end(
    monkeypatch: pytest.MonkeyPatch, answer: RuntimeError | float
) -> None:
    def looked_up(**_: Any) -> Any:
        if isinstance(answer, RuntimeError):
            raise answer
        return SimpleNamespace(value=answer)

    said: list[str] = []
    service = SimpleNamespace(get_service_quota=looked_up)
    monkeypatch.setattr(quota_check, "aws", SimpleNamespace(servicequotas=service))
    monkeypatch.setattr(quota_check.pulumi, "log", SimpleNamespace(warn=said.append))
    quota_check.warn_about_quotas(StackSettings(), opts=None)  # type: ignore[arg-type]
    (text,) = said
    assert "AccessDenied" in text if isinstance(answer, RuntimeError) else "no instance" in text


def test_the_built_page_is_what_the_site_publishes() -> None:
    published = {key: path for path, key in list_site_files(ROOT)}
    assert "index.html" in published
    linked = re.findall(r'(?:src|href)="\./([^"]+)"', published["index.html"].read_text())
    assert linked
    assert set(linked) <= set(published)
    assert [key for key in published if key.startswith("assets/") and key.endswith(".js")]
    assert published["index.html"].parent == static_files.PAGE_DIR, "the folder that the gateway serves"


def test_a_page_that_is_not_built_or_holds_strange_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make web"):
        list(list_site_files(tmp_path))
    page = tmp_path / PAGE_FOLDER
    page.mkdir(parents=True)
    (page / "index.html").write_text("page")
    (page / "notes.md").write_text("strange")
    with pytest.raises(ValueError, match=r"notes\.md has an unknown file type"):
        list(list_site_files(tmp_path))


def policy_of(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (part.partition(" ") for part in text.split("; "))}


def test_the_site_may_call_the_api_and_its_two_buckets_alone() -> None:
    policy = policy_of(build_content_security_policy("eu-west-1", "videos", "results"))
    api = "https://*.execute-api.eu-west-1.amazonaws.com"
    videos = "https://videos.s3.eu-west-1.amazonaws.com https://videos.s3.amazonaws.com"
    results = videos.replace("videos", "results")
    assert policy["media-src"] == f"'self' blob: {videos}"
    assert policy["connect-src"] == f"'self' {api} {videos} {results}"


def test_the_site_s_policy_is_the_gateway_s_but_for_the_addresses() -> None:
    """The same page is served by both: what it needs of one it needs of the other."""
    site = policy_of(build_content_security_policy("eu-west-1", "videos", "results"))
    gateway = policy_of(static_files.build_content_security_policy(()))
    assert site.keys() == gateway.keys()
    for name in site.keys() - {"media-src", "connect-src"}:
        assert site[name] == gateway[name], name
    for name in ("media-src", "connect-src"):
        assert site[name].startswith(gateway[name])


def test_pages_read_results_and_videos_and_send_videos_alone() -> None:
    site = ["https://site.example.org"]
    reading, sending = download_cors_rule(site), upload_cors_rule(site)
    assert reading["allowed_methods"] == ["GET", "HEAD"]
    assert {"range", "if-range"} <= set(reading["allowed_headers"])
    assert {"Content-Range", "Accept-Ranges", "Content-Length"} <= set(reading["expose_headers"])
    assert sending["allowed_methods"] == ["POST"]
    assert reading["allowed_origins"] == sending["allowed_origins"] == site


def test_the_dashboard_has_no_graph_over_another_and_none_that_is_empty() -> None:
    body = build_dashboard_body(
        NAMES,
        functions=["f"],
        queues=["q"],
        api_id="a",
        state_machine_arn="m",
        load_balancer_suffixes=("t", "l"),
        alarm_arns=["x"],
    )
    taken = set()
    for widget in body["widgets"]:
        cells = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert widget["properties"].get("metrics") or widget["properties"]["alarms"]
