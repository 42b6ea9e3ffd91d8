"""Shared code of the Lambda functions: environment, S3, DynamoDB, API requests, inference server."""
