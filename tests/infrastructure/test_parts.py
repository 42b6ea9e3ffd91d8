"""Parts of the stack that need no engine: zones, the site's files, the dashboard, and which stacks are tried."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin

import pytest
from conftest import VARIANTS

from infrastructure import network
from infrastructure.dashboard import dashboard_body
from infrastructure.naming import Names
from infrastructure.settings import StackSettings, option_name
from infrastructure.website import content_policy, site_files

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
    tried = {json.dumps(each[option_name(field)]) for each in VARIANTS.values() if option_name(field) in each}
    assert {json.dumps(each) for each in values_of(field)} <= tried | {json.dumps(default)}


def offers(monkeypatch: pytest.MonkeyPatch, *zones: str) -> None:
    answer = SimpleNamespace(locations=list(zones))
    ec2 = SimpleNamespace(get_instance_type_offerings=lambda **_: answer)
    monkeypatch.setattr(network, "aws", SimpleNamespace(ec2=ec2))


def test_zones_are_those_that_have_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    offers(monkeypatch, "us-east-1f", "us-east-1a", "us-east-1c")
    found = network.gpu_zones(StackSettings(), opts=None)  # type: ignore[arg-type]
    assert found == ["us-east-1a", "us-east-1c"]


def test_a_region_without_the_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    offers(monkeypatch)
    with pytest.raises(ValueError, match=r"no zone of this region has g6.xlarge: set gpuInstanceTypes"):
        network.gpu_zones(StackSettings(), opts=None)  # type: ignore[arg-type]


def test_the_site_s_files_are_published_and_what_made_them_is_not(tmp_path: Path) -> None:
    assert list(site_files(tmp_path)) == []
    web = tmp_path / "clients" / "web"
    for name in (
        "index.html",
        "src/app.js",
        "node_modules/x/y.js",
        ".cache/z.js",
        "package.json",
        "notes.md",
    ):
        (web / name).parent.mkdir(parents=True, exist_ok=True)
        (web / name).write_text(name)
    assert [key for _, key in site_files(tmp_path)] == ["index.html", "src/app.js"]
    (web / "dist").mkdir()
    (web / "dist" / "index.html").write_text("built")
    assert [key for _, key in site_files(tmp_path)] == ["index.html"]


def test_the_site_may_call_the_api_and_the_uploads_bucket_alone() -> None:
    policy = dict(part.split(" ", 1) for part in content_policy("eu-west-1", "videos").split("; "))
    assert "https://*.execute-api.eu-west-1.amazonaws.com" in policy["connect-src"]
    assert "https://videos.s3.eu-west-1.amazonaws.com" in policy["connect-src"]
    assert policy["default-src"] == "'self'"


def test_the_dashboard_has_no_graph_over_another_and_none_that_is_empty() -> None:
    body = dashboard_body(
        NAMES, functions=["f"], queues=["q"], api_id="a", machine="m", hosts=("t", "l"), alarms=["x"]
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
