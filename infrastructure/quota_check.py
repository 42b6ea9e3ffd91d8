"""Warn if the account's service quotas do not allow the GPU instances of the settings.

New accounts often have a quota of zero: the deployment would succeed, but the fleet would never start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pulumi
import pulumi_aws as aws

from infrastructure.config import StackSettings

# Names and codes of the quotas; both count vCPUs, not instances.
ON_DEMAND = ("Running On-Demand G and VT instances", "L-DB2E81BA")
SPOT = ("All G and VT Spot Instance Requests", "L-3819A6DF")
# The same in all supported families: https://aws.amazon.com/ec2/instance-types/#Accelerated_Computing
VCPUS = {"xlarge": 4, "2xlarge": 8, "4xlarge": 16, "8xlarge": 32, "16xlarge": 64}


def warn_about_quotas(settings: StackSettings, *, opts: pulumi.InvokeOptions) -> None:
    """Log a warning for each quota that is too small, or if the quotas cannot be read."""

    def get_quota(code: str) -> float:
        result = aws.servicequotas.get_service_quota(service_code="ec2", quota_code=code, opts=opts)
        return float(result.value)

    try:
        warnings = list(find_shortages(settings, get_quota))
    except Exception as error:  # Pulumi's invokes raise nothing narrower. The deployment can continue.
        warnings = [f"the service quotas of GPU instances could not be read: {error}"]
    for text in warnings:
        pulumi.log.warn(text)


def find_shortages(settings: StackSettings, get_quota: Callable[[str], float]) -> Iterator[str]:
    """Yield a message for each quota that allows fewer instances than the settings.

    Args:
        settings: of the stack.
        get_quota: returns a quota by its code.
    """
    preferred = settings.gpu_instance_types[0]
    vcpus = VCPUS[preferred.partition(".")[2]]
    share = settings.gpu_on_demand_percent
    for is_used, (name, code) in ((share > 0, ON_DEMAND), (share < 100, SPOT)):
        if not is_used:
            continue
        instances = int(get_quota(code) // vcpus)
        if instances < settings.gpu_max_instances:
            allowed = (
                "no instance" if instances == 0 else f"{instances} of {settings.gpu_max_instances} instances"
            )
            yield (
                f"the account can run {allowed} of {preferred}: its quota {name!r} ({code}) is {get_quota(code):g} "
                f"vCPUs, and an instance has {vcpus}. Request {settings.gpu_max_instances * vcpus}: aws service-quotas "
                f"request-service-quota-increase --service-code ec2 --quota-code {code} "
                f"--desired-value {settings.gpu_max_instances * vcpus}"
            )
