"""Cost model of the AWS pipeline and the list prices it uses."""
