"""Constitution and prompts in, training data out: critique and revision (Bai et al. 2022, section 3)."""
