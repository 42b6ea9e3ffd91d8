"""Cost model of the AWS pipeline, and its list prices."""
