"""Data in, checkpoint out: supervised fine-tuning, preference tuning, merging."""
