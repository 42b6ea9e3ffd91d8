"""Answers to what the program asks AWS before it declares anything.

They are made up: the engines that record have no AWS, and moto knows neither the parameter of the image nor quotas (a test
finds out when it does).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gorggle_local.aws.provider_outputs import ACCOUNT, REGION

GPU_ZONES = ("a", "b", "c", "d")
# A quota of GPU instances that is enough for all.
VCPU_QUOTA = 10_000
AMI_ID = "ami-0123456789abcdef0"


def invoke(token: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Answer one look-up.

    Raises:
        KeyError: nobody has said what to answer.
    """
    match token:
        case "aws:index/getCallerIdentity:getCallerIdentity":
            return {
                "accountId": ACCOUNT,
                "arn": f"arn:aws:iam::{ACCOUNT}:root",
                "userId": ACCOUNT,
                "id": ACCOUNT,
            }
        case "aws:index/getPartition:getPartition":
            return {
                "partition": "aws",
                "dnsSuffix": "amazonaws.com",
                "id": "aws",
                "reverseDnsPrefix": "com.amazonaws",
            }
        case "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings":
            zones = [f"{REGION}{letter}" for letter in GPU_ZONES]
            types = arguments["filters"][0]["values"] * len(zones)
            return {"locations": zones, "instanceTypes": types, "locationTypes": [], "id": REGION}
        case "aws:ssm/getParameter:getParameter":
            return {
                "name": arguments["name"],
                "value": AMI_ID,
                "type": "String",
                "arn": "",
                "version": 1,
                "id": "1",
            }
        case "aws:servicequotas/getServiceQuota:getServiceQuota":
            return {"value": float(VCPU_QUOTA), "quotaCode": arguments["quotaCode"], "id": "quota"}
    raise KeyError(f"the program asks for {token}, and nothing is known of it")
