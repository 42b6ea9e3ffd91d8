"""Gives the API's OpenAPI document."""
