"""The HTTP API's contract, and the page that shows it."""
