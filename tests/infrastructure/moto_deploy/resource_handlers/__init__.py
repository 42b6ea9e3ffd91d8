"""The AWS API calls that create each kind of resource, from the inputs of Pulumi's provider.

A handler is a generator: it yields its calls, is sent their results, and returns the resource's id and computed outputs.
The same handlers run against moto (``deploy``) and against botocore's service models alone (``test_api_validation``).
"""

from __future__ import annotations

from tests.infrastructure.moto_deploy.resource_handlers import (
    apigateway_cloudfront,
    autoscaling,
    cloudwatch,
    ec2_elb,
    iam,
    lambda_,
    s3_dynamodb_kms,
    single_call,
    sqs_sns,
)
from tests.infrastructure.moto_deploy.resource_handlers.registry import Call, CallGenerator, create_calls

# Importing the modules registers their handlers.
_MODULES = (
    *(apigateway_cloudfront, autoscaling, cloudwatch, ec2_elb, iam, lambda_, s3_dynamodb_kms),
    *(single_call, sqs_sns),
)

__all__ = ["Call", "CallGenerator", "create_calls"]
