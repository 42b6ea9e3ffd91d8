"""AWS on moto within this process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from moto import mock_aws

from tests.lambdas.cloud import Cloud, made_cloud

# Before any function is imported, as on Lambda: Powertools reads these then.
os.environ |= {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "POWERTOOLS_TRACE_DISABLED": "true",
    "POWERTOOLS_METRICS_NAMESPACE": "Gorggle",
    "POWERTOOLS_SERVICE_NAME": "gorggle",
}


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """An AWS of the test's own. Clients are kept from test to test: making one takes longer than most tests."""
    with mock_aws():
        yield made_cloud()
