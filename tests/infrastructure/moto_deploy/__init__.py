"""The Pulumi program on moto: resources become API calls, validated against botocore's description of the API."""
