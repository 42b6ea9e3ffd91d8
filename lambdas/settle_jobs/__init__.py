"""Ends jobs whose execution ended without saying so."""
