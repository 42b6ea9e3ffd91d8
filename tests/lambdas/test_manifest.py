"""Tests that the function manifest matches the handlers, their settings and the OpenAPI document."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.session
import jsonschema
import pytest
import yaml

from gorggle_lambdas.common.settings import SettingsError, load_settings
from infrastructure.packaging.build import SDK_WITHOUT_GRPC

ROOT = Path(__file__).resolve().parents[2]
MANIFEST: dict[str, Any] = tomllib.loads((ROOT / "lambdas" / "functions.toml").read_text())
FUNCTIONS: dict[str, dict[str, Any]] = MANIFEST["functions"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_exactly_the_variables_it_reads(name: str) -> None:
    module = importlib.import_module(f"gorggle_lambdas.handlers.{name}")
    fields = dataclasses.fields(module.Settings) if hasattr(module, "Settings") else ()
    assert set(FUNCTIONS[name]["environment"]) == {field.name.upper() for field in fields}


def test_every_handler_is_in_the_manifest() -> None:
    handlers = {path.stem for path in (ROOT / "lambdas" / "handlers").glob("[a-z]*.py")}
    assert handlers == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_handler_exists(name: str) -> None:
    module, _, function = FUNCTIONS[name]["handler"].rpartition(".")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_wildcard_resource_has_a_reason(name: str) -> None:
    for statement in FUNCTIONS[name]["statements"]:
        assert all(not action.endswith("*") for action in statement["actions"])
        if "*" in statement["resources"]:
            assert statement["reason"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_only_functions_that_import_the_media_layer_have_it(name: str) -> None:
    used = _find_imports(f"gorggle_lambdas.handlers.{name}", set())
    needs = bool(used & {"av", "numpy", "grpc", "gorggle"})
    assert ("media" in FUNCTIONS[name].get("layers", ["base"])) == needs


def _find_imports(module: str, seen: set[str]) -> set[str]:
    """Return the external top-level modules that a project module imports, directly or through project modules."""
    path = ROOT / "src" / (module.replace(".", "/") + ".py")
    path = path if path.is_file() else ROOT / "src" / module.replace(".", "/") / "__init__.py"
    if module in seen or not path.is_file():
        return set()
    seen.add(module)
    imported: set[str] = set()
    for source, names in re.findall(
        r"^from ([\w.]+) import (\(.*?\)|[^\n]+)", path.read_text(), re.MULTILINE | re.DOTALL
    ):
        if source.startswith("gorggle_lambdas"):
            imported |= _find_imports(source, seen)
            for name in re.findall(r"\w+", names):
                imported |= _find_imports(f"{source}.{name}", seen)
        elif not _is_sdk_without_grpc(source):
            imported.add(source.split(".")[0])
    imported |= {
        name.split(".")[0] for name in re.findall(r"^import ([\w.]+)", path.read_text(), re.MULTILINE)
    }
    return imported


def _is_sdk_without_grpc(module: str) -> bool:
    return module.startswith("gorggle.captions") or f"{module.replace('.', '/')}.py" in SDK_WITHOUT_GRPC


def test_every_setting_exists_and_is_used() -> None:
    text = (ROOT / "lambdas" / "functions.toml").read_text()
    named = set(re.findall(r'"setting:(\w+)"', text))
    assert named == set(MANIFEST["settings"])


def test_the_openapi_document_has_exactly_the_routes() -> None:
    document = yaml.safe_load((ROOT / "lambdas" / "api" / "openapi.yaml").read_text())
    described = {
        f"{method.upper()} {path}"
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }
    routes = {
        function["trigger"]["route"]: function["trigger"]["authorized"]
        for function in FUNCTIONS.values()
        # The default route is not documented.
        if function["trigger"]["kind"] == "route" and function["trigger"]["route"] != "$default"
    }
    assert described == set(routes)
    for route, authorized in routes.items():
        method, path = route.split()
        assert (document["paths"][path][method.lower()].get("security") != []) == authorized


def test_the_openapi_document_is_valid() -> None:
    document = yaml.safe_load((ROOT / "lambdas" / "api" / "openapi.yaml").read_text())
    assert document["openapi"] == "3.1.0"
    for reference in re.findall(r"#/([\w/]+)", json.dumps(document)):
        node = document
        for part in reference.split("/"):
            node = node[part]
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_actions_of_a_function_exist(name: str) -> None:
    """Each is an operation of its service, or an S3 permission with another name than its operation."""
    session = botocore.session.get_session()
    permissions = {"s3:ListBucketVersions", "s3:ListBucket", "s3:GetObjectVersion", "s3:DeleteObjectVersion"}
    services = {"states": "stepfunctions", "kms": "kms"}
    for statement in FUNCTIONS[name]["statements"]:
        for action in statement["actions"]:
            service, _, operation = action.partition(":")
            if action not in permissions:
                assert (
                    operation in session.get_service_model(services.get(service, service)).operation_names
                ), action


def test_a_missing_or_invalid_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from gorggle_lambdas.handlers.check_health import Settings

    monkeypatch.delenv("JOBS_TABLE", raising=False)
    with pytest.raises(SettingsError, match="JOBS_TABLE is not set"):
        load_settings(Settings)
    monkeypatch.setenv("JOBS_TABLE", "jobs")
    monkeypatch.setenv("MAX_CONCURRENT_JOBS", "many")
    with pytest.raises(SettingsError, match="MAX_CONCURRENT_JOBS is 'many': expected int"):
        load_settings(Settings)


def test_only_the_settings_module_reads_the_environment() -> None:
    readers = [
        path.name
        for path in (ROOT / "lambdas").rglob("*.py")
        if path.parent.name != "operations" and re.search(r"os\.environ|getenv", path.read_text())
    ]
    assert readers == ["settings.py"]
