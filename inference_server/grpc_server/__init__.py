"""The gRPC side of the server: messages, calls, statuses. The only place that knows protobuf."""
