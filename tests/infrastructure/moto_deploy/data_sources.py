"""Made-up results of the data sources (Pulumi's invokes) that the program reads.

The recording engine has no AWS, and moto knows neither the AMI parameter nor service quotas (a test fails once it does).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.infrastructure.moto_deploy.provider_outputs import ACCOUNT, REGION

GPU_ZONES = [f"{REGION}{letter}" for letter in "abcd"]
# Enough for every setting.
VCPU_QUOTA = 10_000.0
AMI_ID = "ami-0123456789abcdef0"

_RESULTS: Mapping[str, Mapping[str, Any]] = {
    "aws:index/getCallerIdentity:getCallerIdentity": {
        "accountId": ACCOUNT,
        "arn": f"arn:aws:iam::{ACCOUNT}:root",
        "userId": ACCOUNT,
        "id": ACCOUNT,
    },
    "aws:index/getPartition:getPartition": {
        "partition": "aws",
        "dnsSuffix": "amazonaws.com",
        "id": "aws",
        "reverseDnsPrefix": "com.amazonaws",
    },
    "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": {
        "locations": GPU_ZONES,
        "instanceTypes": [],
        "locationTypes": [],
        "id": REGION,
    },
    "aws:ssm/getParameter:getParameter": {
        "value": AMI_ID,
        "type": "String",
        "arn": "",
        "version": 1,
        "id": "1",
    },
    "aws:servicequotas/getServiceQuota:getServiceQuota": {"value": VCPU_QUOTA, "id": "quota"},
}


def invoke(token: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the result of a data source.

    Raises:
        KeyError: no result is defined for it.
    """
    if token not in _RESULTS:
        raise KeyError(f"no result is defined for {token}")
    return {**arguments, **_RESULTS[token]}
