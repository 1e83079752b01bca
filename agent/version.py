"""The version of tunesmith, in the one place that the package's metadata and `--version` read."""

VERSION = "0.1.0"
