"""Training text written by this project: what labelled corpora do not teach.

Templates crossed with word lists (``lexicons/``) give every alarming word a harmless twin in the same kind of sentence:
hate and the speech against it, threats and sport, methods and prevention. Every harmful text states an intent; none
holds a usable detail.
"""

from safety_classifier.synthetic.pairs import generate, preferences

__all__ = ["generate", "preferences"]
