"""The AWS stack of Gorggle: one concern a file, composed by ``__main__.py``."""
