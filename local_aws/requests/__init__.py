"""What the AWS API is asked for in order to make each kind of resource: Terraform's shapes as API calls.

Each module knows the resources of some services. A function per kind yields its calls one by one, is given their
answers, and returns the resource's id and what its provider would compute. The same functions are run against the
local AWS (``local_aws.apply``) and against botocore's shapes alone (the tests).
"""

from __future__ import annotations

import importlib

from local_aws.requests.call import Call, Making, made_by

for _module in (
    "functions",
    "identity",
    "interfaces",
    "messages",
    "monitors",
    "networks",
    "servers",
    "stores",
):
    importlib.import_module(f"local_aws.requests.{_module}")

__all__ = ["Call", "Making", "made_by"]
