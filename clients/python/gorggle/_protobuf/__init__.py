"""Conversion between the SDK's types and protobuf messages."""
