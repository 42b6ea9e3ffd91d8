"""Resources that a single API call creates."""

from __future__ import annotations

from tests.infrastructure.moto_deploy.provider_outputs import ACCOUNT
from tests.infrastructure.moto_deploy.resource_handlers.registry import (
    ec2_tags,
    handle_with_call,
    list_tags,
    map_tags,
)

# API Gateway and CloudFront
handle_with_call(
    "apigatewayv2/integration:Integration",
    "apigatewayv2.CreateIntegration",
    "IntegrationId",
    renames={"timeoutMilliseconds": "timeoutInMillis"},
)
handle_with_call("apigatewayv2/route:Route", "apigatewayv2.CreateRoute", "RouteId")
handle_with_call(
    "apigatewayv2/stage:Stage",
    "apigatewayv2.CreateStage",
    "=name",
    renames={"name": "stageName"},
    tags=map_tags,
)
handle_with_call(
    "cloudfront/originAccessControl:OriginAccessControl",
    "cloudfront.CreateOriginAccessControl",
    "OriginAccessControl.Id",
    wrap="originAccessControlConfig",
)
# CloudWatch and Budgets. The provider gives dashboards no tags.
handle_with_call("cloudwatch/dashboard:Dashboard", "cloudwatch.PutDashboard", "=dashboardName")
handle_with_call(
    "budgets/budgetAction:BudgetAction",
    "budgets.CreateBudgetAction",
    "ActionId",
    extra={"AccountId": ACCOUNT},
)
handle_with_call(
    "cloudwatch/eventRule:EventRule", "events.PutRule", "=name", outputs={"arn": "RuleArn"}, tags=list_tags
)
# EC2
handle_with_call(
    "ec2/routeTable:RouteTable",
    "ec2.CreateRouteTable",
    "RouteTable.RouteTableId",
    tags=ec2_tags("route-table"),
)
handle_with_call(
    "ec2/routeTableAssociation:RouteTableAssociation", "ec2.AssociateRouteTable", "AssociationId"
)
handle_with_call("ec2/route:Route", "ec2.CreateRoute", "=routeTableId")
handle_with_call(
    "ec2/eip:Eip",
    "ec2.AllocateAddress",
    "AllocationId",
    outputs={"allocationId": "AllocationId", "publicIp": "PublicIp"},
    tags=ec2_tags("elastic-ip"),
)
handle_with_call(
    "ec2/natGateway:NatGateway",
    "ec2.CreateNatGateway",
    "NatGateway.NatGatewayId",
    tags=ec2_tags("natgateway"),
)
handle_with_call(
    "ec2/flowLog:FlowLog",
    "ec2.CreateFlowLogs",
    "FlowLogIds.0",
    renames={"vpcId": "resourceIds", "iamRoleArn": "deliverLogsPermissionArn"},
    tags=ec2_tags("vpc-flow-log"),
    extra={"ResourceType": "VPC", "LogDestinationType": "cloud-watch-logs"},
)
# IAM and Cognito
handle_with_call(
    "iam/role:Role",
    "iam.CreateRole",
    "=name",
    outputs={"arn": "Role.Arn", "uniqueId": "Role.RoleId"},
    renames={"name": "roleName", "assumeRolePolicy": "assumeRolePolicyDocument"},
    tags=list_tags,
)
handle_with_call(
    "iam/rolePolicy:RolePolicy",
    "iam.PutRolePolicy",
    "=role",
    renames={"name": "policyName", "role": "roleName", "policy": "policyDocument"},
)
handle_with_call(
    "iam/policy:Policy",
    "iam.CreatePolicy",
    "Policy.Arn",
    outputs={"arn": "Policy.Arn"},
    renames={"name": "policyName", "policy": "policyDocument"},
    tags=list_tags,
)
handle_with_call("cognito/userPoolDomain:UserPoolDomain", "cognito-idp.CreateUserPoolDomain", "=domain")
handle_with_call(
    "cognito/userPoolClient:UserPoolClient",
    "cognito-idp.CreateUserPoolClient",
    "UserPoolClient.ClientId",
    # Unlike the other parameters of this service these begin with a small letter.
    renames={"name": "clientName", "callbackUrls": "callbackURLs", "logoutUrls": "logoutURLs"},
)
# Lambda
handle_with_call(
    "lambda/functionEventInvokeConfig:FunctionEventInvokeConfig",
    "lambda.PutFunctionEventInvokeConfig",
    "=functionName",
)
handle_with_call(
    "lambda/eventSourceMapping:EventSourceMapping",
    "lambda.CreateEventSourceMapping",
    "UUID",
    outputs={"uuid": "UUID"},
    tags=map_tags,
)
# S3
for _kind, _operation, _wrap in (
    ("bucketVersioning:BucketVersioning", "PutBucketVersioning", ""),
    ("bucketPolicy:BucketPolicy", "PutBucketPolicy", ""),
    (
        "bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        "PutBucketEncryption",
        "serverSideEncryptionConfiguration",
    ),
    (
        "bucketPublicAccessBlock:BucketPublicAccessBlock",
        "PutPublicAccessBlock",
        "publicAccessBlockConfiguration",
    ),
    ("bucketOwnershipControls:BucketOwnershipControls", "PutBucketOwnershipControls", "ownershipControls"),
    (
        "bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        "PutBucketLifecycleConfiguration",
        "lifecycleConfiguration",
    ),
    ("bucketCorsConfiguration:BucketCorsConfiguration", "PutBucketCors", "corsConfiguration"),
):
    handle_with_call(f"s3/{_kind}", f"s3.{_operation}", "=bucket", wrap=_wrap, outer=("bucket",))
# KMS, Secrets Manager, SNS
handle_with_call("kms/alias:Alias", "kms.CreateAlias", "=name", renames={"name": "aliasName"})
handle_with_call(
    "secretsmanager/secret:Secret",
    "secretsmanager.CreateSecret",
    "ARN",
    outputs={"arn": "ARN"},
    ignored=("recoveryWindowInDays",),
    tags=list_tags,
)
handle_with_call(
    "secretsmanager/secretRotation:SecretRotation",
    "secretsmanager.RotateSecret",
    "=secretId",
    renames={"rotationLambdaArn": "rotationLambdaARN"},
)
handle_with_call(
    "sns/topicSubscription:TopicSubscription",
    "sns.Subscribe",
    "SubscriptionArn",
    outputs={"arn": "SubscriptionArn"},
    renames={"topic": "topicArn"},
    extra={"ReturnSubscriptionArn": True},
)
