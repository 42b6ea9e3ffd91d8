"""Messages and stubs of the API `gorggle.v1`, generated from protos/ by `make protos`."""
