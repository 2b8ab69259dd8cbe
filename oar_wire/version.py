"""The version of the packages: the next release with `.dev0`, until it is out."""

VERSION = "0.2.0.dev0"
