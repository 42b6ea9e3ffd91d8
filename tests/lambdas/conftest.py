"""AWS on moto in the test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto import mock_aws

from tests.lambdas.moto_environment import Cloud, create_cloud


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """A separate AWS account per test. AWS clients are cached across tests, because creating one is slow."""
    with mock_aws():
        yield create_cloud()
