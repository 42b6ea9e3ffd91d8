"""Fixtures: one inference server per session and one pipeline per module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.pipeline import Certificates, GpuServer, Pipeline, create_certificates, running_pipeline
from tests.e2e.runtime import lambda_python


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the interpreter of the functions, if any ran."""
    if lambda_python.cache_info().currsize:
        terminalreporter.write_line(f"functions of the pipeline ran under {lambda_python().description}")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return create_certificates(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def server(certificates: Certificates) -> Iterator[GpuServer]:
    server = GpuServer(certificates)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def pipeline(
    tmp_path_factory: pytest.TempPathFactory, server: GpuServer, certificates: Certificates
) -> Iterator[Pipeline]:
    with running_pipeline(tmp_path_factory.mktemp("aws"), server, certificates, time_scale=0.1) as pipeline:
        yield pipeline
