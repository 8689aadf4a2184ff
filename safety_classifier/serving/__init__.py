"""The classifier as an HTTP server."""
