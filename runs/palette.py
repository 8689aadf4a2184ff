"""The colours that figures share, whichever package draws them."""

from __future__ import annotations

INK, FAINT, GRID, PAPER = "#1d2733", "#66707c", "#e4e7eb", "#ffffff"
SERIES = ("#5b6470", "#c77700", "#0067a5", "#7b5ea7", "#2a8c82", "#a8403c", "#8a7a2c", "#3d3d3d")
"""For things that are told apart, in order; distinguishable under the common colour-vision deficiencies."""
BETTER, WORSE = "#0b7a5b", "#b8431f"
MUTED = "#b3b9c1"
"""For what stands back."""
