"""What the AWS API is asked for in order to make each kind of resource: Terraform's shapes as API calls.

Each module knows the resources of some services. A function per kind yields its calls one by one, is given their
answers, and returns the resource's id and what its provider would compute. The same functions are run against the
local AWS (``gorggle_local.aws.deploy``) and against botocore's shapes alone (the tests).
"""

from __future__ import annotations

import importlib

from gorggle_local.aws.resource_handlers.registry import Call, CallGenerator, create_calls

for _module in (
    "lambda_",
    "iam",
    "apigateway_cloudfront",
    "sqs_sns",
    "cloudwatch",
    "ec2_elb",
    "autoscaling",
    "s3_dynamodb_kms",
):
    importlib.import_module(f"gorggle_local.aws.resource_handlers.{_module}")

__all__ = ["Call", "CallGenerator", "create_calls"]
