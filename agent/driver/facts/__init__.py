"""Answers from the store, the machine and the product's own arithmetic: the asked fact first, the source beside it."""
