"""The gorggle command."""
