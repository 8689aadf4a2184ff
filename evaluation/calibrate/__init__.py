"""The report card: every evaluator against people's labels, beside length alone and a constant."""
