"""Typed questions: a request with its own arguments, the facts that answer it, and the lines that the screen shows."""
