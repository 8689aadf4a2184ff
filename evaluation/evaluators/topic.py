"""Whether an answer belongs to its request: a fitted model over the content words that the two share.

The model was fitted on helpful answers beside their own requests and beside requests of other dialogues. It reads
words only: an answer in synonyms looks strange to it, so its threshold lets two of a thousand true answers fall.
"""

from __future__ import annotations

import math

from evaluation.evaluators.text import Text, content_stems

_LARGE = 200
"""Content words from which an answer's size counts as full."""


def topic_features(own: set[str], request: Text, before: Text) -> dict[str, float]:
    """What the topic model reads; each in [0, 1].

    Args:
        own: content stems of the answer's own words.
        request: the last thing the user said.
        before: everything said before it.
    """
    asked = content_stems(request.words)
    whole = asked | content_stems(before.words)
    shared = len(asked & own)
    size = min(1.0, math.log1p(len(own)) / math.log1p(_LARGE))
    return {
        "share_of_request": shared / len(asked) if asked else 0.5,
        "shared_words": min(shared, 3) / 3,
        "none_shared": float(shared == 0),
        "none_shared_in_a_long_answer": size * (shared == 0),
        "size": size,
        "request_without_content": float(not asked),
        "shared_with_conversation": min(len(whole & own), 4) / 4,
        "share_of_answer": len(whole & own) / max(1, len(own)),
    }
