"""A prompt in, a response out: model registry, the one chat format, engines."""
