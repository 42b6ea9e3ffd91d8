"""``gorggle cost``: estimates the cost of the AWS pipeline before deployment."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gorggle_lambdas.aws_costs import cost_model, prices

_EXAMPLES = """\
examples:
  gorggle cost                                    an idle month, and an hour of video
  gorggle cost --hours 0.17 --gpu g4dn.xlarge     a ten-minute video
  gorggle cost --audio server --faces server      without Transcribe and Rekognition
  gorggle cost --on-demand-percent 0 --json       all spot, as JSON
  gorggle cost --prices mine.json                 with custom prices

Prices are on-demand list prices of {region} as of {as_of} in US dollars, without free tiers; verify them before relying on
the result. A price file contains the prices to override, such as {{"transcribe_per_min": 0.02, "instances": {{"g6.xlarge": 0.9}}}};
--json lists all names. docs/aws.md describes what is included.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = argparse.ArgumentParser(
        prog="gorggle cost",
        description="Estimate the cost of the AWS pipeline: an idle month, and the processing of video.",
        epilog=_EXAMPLES.format(region=prices.REGION, as_of=prices.AS_OF),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = cost_model.StackConfig()
    parser.add_argument(
        "--hours", type=_parse_hours, default=1.0, metavar="H", help="hours of video (default: 1)"
    )
    parser.add_argument(
        "--gpu",
        default=default.gpu_instance_type,
        metavar="TYPE",
        help=f"instance type (default: {default.gpu_instance_type})",
    )
    parser.add_argument(
        "--gpu-min", type=int, default=0, metavar="N", help="instances that run while idle (default: 0)"
    )
    parser.add_argument(
        "--on-demand-percent",
        type=int,
        choices=range(101),
        default=100,
        metavar="P",
        help="percentage of on-demand instances; the rest is spot (default: 100)",
    )
    parser.add_argument("--audio", choices=("transcribe", "server", "none"), default=default.audio_engine)
    parser.add_argument("--faces", choices=("rekognition", "server", "none"), default=default.face_engine)
    parser.add_argument("--nat", action="store_true", help="use a NAT gateway instead of interface endpoints")
    parser.add_argument(
        "--endpoint-zone-count",
        type=int,
        default=1,
        metavar="N",
        help="availability zones with endpoints (default: 1)",
    )
    parser.add_argument(
        "--prices",
        type=_parse_prices,
        default=prices.LIST_PRICES,
        metavar="FILE",
        help="file with unit prices as JSON",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(arguments: Sequence[str]) -> None:
    """Print the estimate."""
    options = (parser := build_parser()).parse_args(arguments)
    stack = cost_model.StackConfig(
        gpu_instance_type=options.gpu,
        gpu_min_instances=options.gpu_min,
        gpu_on_demand_percent=options.on_demand_percent,
        nat_gateway=options.nat,
        endpoint_zone_count=options.endpoint_zone_count,
        audio_engine=options.audio,
        face_engine=options.faces,
    )
    unit_prices: prices.Prices = options.prices
    try:
        estimates = {
            "idle month": cost_model.estimate_idle_month(stack, unit_prices),
            f"{options.hours:g} h of video": cost_model.estimate_video_hours(
                options.hours, stack, unit_prices
            ),
        }
    except ValueError as error:
        parser.error(str(error))
    print(_format_json(estimates, unit_prices) if options.json else _format_text(estimates))


def _format_json(estimates: dict[str, cost_model.Estimate], unit_prices: prices.Prices) -> str:
    documents = {
        title: {
            "total": round(estimate.total, 4),
            "parts": {name: round(usd, 4) for name, usd in estimate.parts.items()},
        }
        for title, estimate in estimates.items()
    }
    used = {**vars(unit_prices), "instances": dict(unit_prices.instances)}
    return json.dumps(
        {
            "currency": "USD",
            **documents,
            "list_prices": {
                "region": prices.REGION,
                "as_of": prices.AS_OF,
                "sources": prices.list_metadata("source"),
                "compared": {"on": prices.COMPARED_ON, **prices.list_metadata("compared")},
            },
            "prices": used,
        },
        indent=2,
    )


def _format_text(estimates: dict[str, cost_model.Estimate]) -> str:
    blocks = []
    for title, estimate in estimates.items():
        lines = [f"{title}: ${estimate.total:.2f}"]
        lines += [
            f"  {usd:10.2f}  {cost_model.LABELS[name]}" for name, usd in estimate.parts.items() if usd > 0
        ]
        blocks.append("\n".join(lines))
    blocks.append(f"List prices of {prices.REGION} as of {prices.AS_OF}; --prices FILE overrides them.")
    return "\n\n".join(blocks)


def _parse_prices(path: str) -> prices.Prices:
    try:
        return prices.parse_prices(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, prices.PricesError) as error:
        raise argparse.ArgumentTypeError(f"{path}: {error}") from error


def _parse_hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of hours")
    return hours


if __name__ == "__main__":
    run(sys.argv[1:])
