"""Engines: things that turn requests into completions."""
