"""Lambda handlers: one module per function, named after it."""
