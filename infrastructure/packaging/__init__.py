"""Build the deployment packages: Lambda code, Lambda layers and the server bundle, as reproducible zip files."""
