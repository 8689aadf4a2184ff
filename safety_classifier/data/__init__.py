"""Training data: declared sources in, split and deduplicated rows out, batches from those rows."""
