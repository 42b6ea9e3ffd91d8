"""Bearer tokens and the sources of secrets."""
