"""Comparisons of recipes: what data and training give, on the same prompts, with intervals."""
