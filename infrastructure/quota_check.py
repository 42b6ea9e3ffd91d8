"""Tells before anything is built that the account may not run the GPU instances that the settings ask for.

New accounts may run none: everything would be built, and jobs would wait for a fleet that never comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pulumi
import pulumi_aws as aws

from infrastructure.config import StackSettings

# Names and codes as Service Quotas has them; both count processors (vCPU), not instances.
ON_DEMAND = ("Running On-Demand G and VT instances", "L-DB2E81BA")
SPOT = ("All G and VT Spot Instance Requests", "L-3819A6DF")
# The same in every family that the settings allow: https://aws.amazon.com/ec2/instance-types/#Accelerated_Computing
VCPUS = {"xlarge": 4, "2xlarge": 8, "4xlarge": 16, "8xlarge": 32, "16xlarge": 64}


def warn_about_quotas(settings: StackSettings, *, opts: pulumi.InvokeOptions) -> None:
    """Look the quotas up, and say where they are too small; whoever may not look is told that."""

    def allowed(code: str) -> float:
        found = aws.servicequotas.get_service_quota(service_code="ec2", quota_code=code, opts=opts)
        return float(found.value)

    try:
        told = list(find_shortages(settings, allowed))
    except (
        Exception
    ) as error:  # Pulumi's look-ups raise nothing narrower; the stack can be built all the same.
        told = [f"the quotas of GPU instances could not be looked up: {error}"]
    for text in told:
        pulumi.log.warn(text)


def find_shortages(settings: StackSettings, get_quota: Callable[[str], float]) -> Iterator[str]:
    """Where the account may run fewer instances than the settings say, and what to do.

    Args:
        settings: of the stack.
        get_quota: the account's quota by its code.
    """
    preferred = settings.gpu_instance_types[0]
    each = VCPUS[preferred.partition(".")[2]]
    share = settings.gpu_on_demand_percent
    for is_asked_for, (name, code) in ((share > 0, ON_DEMAND), (share < 100, SPOT)):
        if not is_asked_for:
            continue
        instances = int(get_quota(code) // each)
        if instances < settings.gpu_max_instances:
            can = (
                "no instance" if instances == 0 else f"{instances} of {settings.gpu_max_instances} instances"
            )
            yield (
                f"the account may run {can} of {preferred}: its quota {name!r} ({code}) is {get_quota(code):g} "
                f"processors, and one takes {each}. Ask for {settings.gpu_max_instances * each}: aws service-quotas "
                f"request-service-quota-increase --service-code ec2 --quota-code {code} "
                f"--desired-value {settings.gpu_max_instances * each}"
            )
