"""What the functions share: each border (environment, S3, DynamoDB, the API's requests, the server) in one module."""
