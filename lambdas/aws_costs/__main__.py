"""``gorggle cost``: what the AWS pipeline would cost, before anything is built or uploaded."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gorggle_lambdas.aws_costs import cost_model, prices

_EXAMPLES = """\
examples:
  gorggle cost                                    a month at rest, and an hour of video
  gorggle cost --hours 0.17 --gpu g4dn.xlarge     a ten-minute video
  gorggle cost --sound server --faces server      without Transcribe and Rekognition
  gorggle cost --on-demand-percent 0 --json       all spot, for a program
  gorggle cost --prices mine.json                 with prices of your own

Prices are list prices of {region} as of {as_of}, on demand, in US dollars, without free tiers: look them up before you rely
on them. A file of your own holds those that differ, such as {{"transcribe_per_min": 0.02, "instances": {{"g6.xlarge": 0.9}}}};
all their names are in the answer to --json. docs/aws.md says what is counted.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(
        prog="gorggle cost",
        description="Estimate what the AWS pipeline costs: a month at rest, and video on top.",
        epilog=_EXAMPLES.format(region=prices.REGION, as_of=prices.AS_OF),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = cost_model.StackConfig()
    made.add_argument(
        "--hours", type=_parse_hours, default=1.0, metavar="H", help="hours of video (default: 1)"
    )
    made.add_argument(
        "--gpu",
        default=default.gpu_instance_type,
        metavar="TYPE",
        help=f"instance type (default: {default.gpu_instance_type})",
    )
    made.add_argument(
        "--gpu-min", type=int, default=0, metavar="N", help="instances kept while idle (default: 0)"
    )
    made.add_argument(
        "--on-demand-percent",
        type=int,
        choices=range(101),
        default=100,
        metavar="P",
        help="share of on-demand instances; the rest is spot (default: 100)",
    )
    made.add_argument("--sound", choices=("transcribe", "server", "none"), default=default.audio_engine)
    made.add_argument("--faces", choices=("rekognition", "server", "none"), default=default.face_engine)
    made.add_argument("--nat", action="store_true", help="a NAT gateway instead of interface endpoints")
    made.add_argument(
        "--endpoint-zone-count", type=int, default=1, metavar="N", help="zones with endpoints (default: 1)"
    )
    made.add_argument(
        "--prices", type=_parse_prices, default=prices.Prices(), metavar="FILE", help="unit prices as JSON"
    )
    made.add_argument("--json", action="store_true", help="write JSON")
    return made


def run(arguments: Sequence[str]) -> None:
    """Write the estimate to standard output."""
    options = (given := build_parser()).parse_args(arguments)
    stack = cost_model.StackConfig(
        gpu_instance_type=options.gpu,
        gpu_min_instances=options.gpu_min,
        gpu_on_demand_percent=options.on_demand_percent,
        nat_gateway=options.nat,
        endpoint_zone_count=options.endpoint_zone_count,
        audio_engine=options.sound,
        face_engine=options.faces,
    )
    unit: prices.Prices = options.prices
    try:
        sums = {
            "a month at rest": cost_model.estimate_idle_month(stack, unit),
            f"{options.hours:g} h of video": cost_model.estimate_video_hours(options.hours, stack, unit),
        }
    except ValueError as error:
        given.error(str(error))
    print(_format_json(sums, unit) if options.json else _format_text(sums))


def _format_json(sums: dict[str, cost_model.Estimate], unit: prices.Prices) -> str:
    found = {
        title: {
            "total": round(each.total, 4),
            "parts": {name: round(usd, 4) for name, usd in each.parts.items()},
        }
        for title, each in sums.items()
    }
    used = {name: getattr(unit, name) for name, _ in prices.list_sources()}
    used["instances"] = dict(unit.instances)
    return json.dumps(
        {
            "currency": "USD",
            **found,
            "list_prices": {
                "region": prices.REGION,
                "as_of": prices.AS_OF,
                "sources": dict(prices.list_sources()),
                "compared": {"in": prices.COMPARED_ON, **dict(prices.list_comparisons())},
            },
            "prices": used,
        },
        indent=2,
    )


def _format_text(sums: dict[str, cost_model.Estimate]) -> str:
    blocks = []
    for title, estimate in sums.items():
        lines = [f"{title}: ${estimate.total:.2f}"]
        lines += [
            f"  {usd:10.2f}  {cost_model.LABELS[name]}" for name, usd in estimate.parts.items() if usd > 0
        ]
        blocks.append("\n".join(lines))
    blocks.append(
        f"List prices of {prices.REGION} as of {prices.AS_OF}; --prices FILE puts others in their place."
    )
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
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours above 0")
    return hours


if __name__ == "__main__":
    run(sys.argv[1:])
