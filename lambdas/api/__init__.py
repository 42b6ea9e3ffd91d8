"""The HTTP API's OpenAPI description."""
