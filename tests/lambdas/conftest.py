"""AWS on moto within this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto import mock_aws

from tests.lambdas.moto_environment import Cloud, made_cloud


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """An AWS of the test's own. Clients are kept from test to test: making one takes longer than most tests."""
    with mock_aws():
        yield made_cloud()
