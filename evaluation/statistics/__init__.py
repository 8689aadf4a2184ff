"""Statistics: pure functions of numbers, without input or output."""
