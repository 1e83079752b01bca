"""The conversation's driver: a language model with typed tools, behind whatever endpoint serves it.

Importing this package loads nothing; its modules import pydantic-ai, so they are imported once the prompt stands.
"""
