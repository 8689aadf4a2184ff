"""A web page on finished runs: verdicts, flips, the classifier and training; checkpoints side by side and live."""
