"""A small judge that counts words, for tests of what stands around a classifier.

python -m tests.safety_classifier.stand_in [PORT [HOLD]]  # a server; its model waits while HOLD exists
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from safety_classifier.api import Classification, Span
from safety_classifier.labels import LABELS, Labels

WORDS = {
    "hate_speech": "hate|vermin|subhuman",
    "self_harm": "suicide|cutting",
    "dangerous_advice": "bomb|poison|meth",
    "toxicity": "idiot|stupid|moron",
    "violence": "kill|stab",
    "sexual": "nude",
}


class StandIn:
    """Each word of a category makes it likelier. ``calls`` holds the size of every call."""

    def __init__(self, seconds: float = 0.0, identity: str = "stand-in") -> None:
        self.labels: Labels = LABELS
        self.identity = hashlib.sha256(identity.encode()).hexdigest()
        self.thresholds = dict.fromkeys(LABELS.of("category", "response"), 0.5)
        self.seconds = seconds
        self.calls: list[list[str]] = []
        self.warmed = False
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.hold: Path | None = None
        """While there is such a file, calls wait."""

    def classify(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[Classification]:
        self.entered.set()
        self.gate.wait(30)
        while self.hold is not None and self.hold.exists():
            time.sleep(0.01)
        time.sleep(self.seconds * len(texts))
        self.calls.append(list(texts))
        if any("\x07crash" in text for text in texts):
            raise ArithmeticError("a text that the model cannot take")
        return [self.one(text, context) for text, context in zip(texts, contexts or [""] * len(texts), strict=True)]

    def one(self, text: str, context: str = "") -> Classification:
        found = {name: len(re.findall(words, text.lower())) for name, words in WORDS.items()}
        scores = {name: round(1 - math.exp(-count), 6) for name, count in found.items()}
        response = {"refusal": float("sorry" in text.lower()), "harmful_response": 0.1} if context else None
        decided = scores | (response or {})
        return Classification(
            probabilities=scores,
            flagged={name: score >= 0.5 for name, score in decided.items()},
            escalate={name: 0.4 < score < 0.7 for name, score in decided.items()},
            safe=math.prod(1 - score for score in scores.values()),
            response=response,
            preference={"harmlessness": float(len(text)), "helpfulness": -1.0} if context else None,
            decided={name: Span(start=0, end=len(text)) for name in decided},
            windows=1,
            obfuscation=0.0,
            empty=not text,
        )

    def warm(self, buckets=None, rows=None, progress: Callable[[int, int], None] | None = None) -> None:
        for step in range(3):
            if progress is not None:
                progress(step, 3)
        self.gate.wait(30)
        self.warmed = True


def main() -> None:
    from runs.console import Reporter, guard
    from safety_classifier.serving.server import serve
    from safety_classifier.serving.settings import LimitSection, ServeSettings, key_ring

    patient = LimitSection(body_s=120, deadline_s=120, shutdown_s=120)
    settings = ServeSettings(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8080, limits=patient)
    judge = StandIn()
    judge.hold = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    sys.exit(guard(lambda: serve(judge, settings, key_ring(settings), reporter=Reporter())))


if __name__ == "__main__":
    main()
