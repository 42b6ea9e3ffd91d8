"""Unit prices of the AWS services that the pipeline uses, in US dollars.

On-demand list prices of us-east-1, without free tiers, discounts and taxes, as known in ``AS_OF``. Prices change, and
other regions cost more. Each has the AWS page it comes from, which is authoritative; those pages fill in their figures by
script, so they could not be compared automatically. In ``COMPARED_ON`` each price was compared with other publications of
AWS's price list, named in its metadata. Override prices as JSON by ``gorggle cost --prices FILE`` or the stack's setting
``prices``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

AS_OF = "2026-06"
COMPARED_ON = "2026-11"
REGION = "us-east-1"

_PAGES = "https://aws.amazon.com/"
_EC2 = _PAGES + "ec2/pricing/on-demand/"
_BALANCING = _PAGES + "elasticloadbalancing/pricing/"
_ENDPOINTS = _PAGES + "privatelink/pricing/"
_NETWORK = _PAGES + "vpc/pricing/"
_SECRETS = _PAGES + "secrets-manager/pricing/"
_KEYS = _PAGES + "kms/pricing/"
_ALARMS = _PAGES + "cloudwatch/pricing/"
_DISKS = _PAGES + "ebs/pricing/"
_STORAGE = _PAGES + "s3/pricing/"
_TRANSCRIBE = _PAGES + "transcribe/pricing/"
_REKOGNITION = _PAGES + "rekognition/pricing/"
_LAMBDA = _PAGES + "lambda/pricing/"
_STATES = _PAGES + "step-functions/pricing/"
_ASSUMED = "an assumption about processing or markets, not an AWS price"

# Linux, per hour.
INSTANCES: Mapping[str, float] = MappingProxyType(
    {
        "g4dn.xlarge": 0.526,
        "g4dn.2xlarge": 0.752,
        "g4dn.4xlarge": 1.204,
        "g4dn.8xlarge": 2.176,
        "g4dn.16xlarge": 4.352,
        "g5.xlarge": 1.006,
        "g5.2xlarge": 1.212,
        "g5.4xlarge": 1.624,
        "g5.8xlarge": 2.448,
        "g5.16xlarge": 4.096,
        "g6.xlarge": 0.8048,
        "g6.2xlarge": 0.9776,
        "g6.4xlarge": 1.3232,
        "g6.8xlarge": 2.0144,
        "g6.16xlarge": 3.3968,
        "g6e.xlarge": 1.861,
        "g6e.2xlarge": 2.2421,  # the list's 2.24208
        "g6e.4xlarge": 3.0042,
        "g6e.8xlarge": 4.5286,
        "g6e.16xlarge": 7.5772,
        # No other publication found.
        "gr6.4xlarge": 1.5392,
        "gr6.8xlarge": 2.4464,
    }
)


class PricesError(ValueError):
    """Prices are invalid; the message has the value and what was expected."""


# Publications that each price was compared with; all agree.
_TABLES = "several price tables in public programs"
_GUIDE_MAY = "a guide to PrivateLink's costs, May 2026"
_GUIDES = "several public guides"
_UNCERTAIN = "one public table of September 2026, marked as unverified"
_NOTHING = "nothing to compare"


def _make_price_field(usd: float, source: str, compared: str = _GUIDES) -> Any:
    return field(default=usd, metadata={"source": source, "compared": compared})


@dataclass(frozen=True)
class Prices:
    """Unit prices in US dollars; the source of each is in its field's metadata.

    Attributes:
        instances: GPU instances by type, per hour.
        gpu_per_h: one instance with its volume, of any type; None: computed from ``instances`` and the stack's mix.
        transcribe_per_min: Amazon Transcribe, batch.
        rekognition_per_min: Amazon Rekognition, face detection in stored video.
        lambda_per_gb_s: x86; request charges are negligible.
        spot_share: spot price relative to on-demand: it changes daily, 0.4 is a cautious middle.
        gpu_s_per_video_s: GPU time per second of video, one window at a time.
        lambda_gb_s_per_video_s: likewise Lambda compute, mostly waiting for the GPU.
    """

    instances: Mapping[str, float] = field(
        default_factory=lambda: INSTANCES, metadata={"source": _EC2, "compared": _TABLES}
    )
    gpu_per_h: float | None = field(default=None, metadata={"source": _EC2, "compared": _NOTHING})
    load_balancer_per_h: float = _make_price_field(0.0225, _BALANCING, _GUIDE_MAY)
    endpoint_per_h: float = _make_price_field(0.01, _ENDPOINTS, _GUIDE_MAY)
    nat_per_h: float = _make_price_field(0.045, _NETWORK)
    address_per_h: float = _make_price_field(0.005, _NETWORK)
    secret_per_month: float = _make_price_field(0.40, _SECRETS)
    key_per_month: float = _make_price_field(1.00, _KEYS)
    alarm_metric_per_month: float = _make_price_field(0.10, _ALARMS)
    disk_per_gib_month: float = _make_price_field(0.08, _DISKS)
    storage_per_gib_month: float = _make_price_field(0.023, _STORAGE)
    transcribe_per_min: float = _make_price_field(0.024, _TRANSCRIBE)
    rekognition_per_min: float = _make_price_field(0.10, _REKOGNITION, _UNCERTAIN)
    lambda_per_gb_s: float = _make_price_field(0.0000166667, _LAMBDA, _TABLES)
    state_transition: float = _make_price_field(0.000025, _STATES)
    spot_share: float = _make_price_field(0.4, _ASSUMED, _NOTHING)
    gpu_s_per_video_s: float = _make_price_field(0.25, _ASSUMED, _NOTHING)
    lambda_gb_s_per_video_s: float = _make_price_field(0.6, _ASSUMED, _NOTHING)


LIST_PRICES = Prices()


def parse_prices(text: str) -> Prices:
    """Parse prices from JSON; missing ones are list prices. Empty: the list prices.

    Args:
        text: an object of prices by their names in ``Prices``; ``instances`` is an object of prices by type, merged with
            the list.

    Raises:
        PricesError: the document is invalid.
    """
    if not text.strip():
        return LIST_PRICES
    try:
        document = json.loads(text)
    except ValueError as error:
        raise PricesError(f"the prices are not valid JSON: {error}") from error
    names = [price.name for price in fields(Prices)]
    if not isinstance(document, dict) or set(document) - set(names):
        found = ", ".join(sorted(set(document) - set(names))) if isinstance(document, dict) else text[:80]
        raise PricesError(f"the prices contain {found}: expected an object with some of {', '.join(names)}")
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name == "instances":
            types = value if isinstance(value, dict) else {}
            if not types:
                raise PricesError(
                    f"instances is {value!r}: expected an object of prices an hour by instance type"
                )
            values[name] = {**INSTANCES, **{kind: _parse_usd(kind, usd) for kind, usd in types.items()}}
        else:
            values[name] = _parse_usd(name, value)
    return Prices(**values)


def _parse_usd(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise PricesError(f"{name} is {value!r}: expected a number, 0 or more, in US dollars")
    return float(value)


def list_metadata(kind: str) -> dict[str, str]:
    """Return each price's source ("source"), or what it was compared with ("compared"), by its name."""
    return {price.name: str(price.metadata[kind]) for price in fields(Prices)}
