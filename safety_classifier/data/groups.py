"""Identity terms in training text, put in each other's place: who is named should not decide what a text scores.

Counterfactual data augmentation (Garg et al. 2019, "Counterfactual Fairness in Text Classification through Robustness",
section 3.3). The label stays: what insults one group insults the next.
"""

from __future__ import annotations

import random
import re

ROWS: tuple[tuple[str, ...], ...] = tuple(
    tuple(row.split(", "))
    for row in (
        "gay, lesbian, bisexual, queer, homosexual, transgender, trans, non-binary, straight, asexual",
        "gays, lesbians, bisexuals, homosexuals, queers, heterosexuals",
        "muslim, jewish, christian, hindu, buddhist, catholic, sikh, mormon, atheist",
        "muslims, jews, christians, hindus, buddhists, catholics, sikhs, mormons, atheists",
        "islam, judaism, christianity, hinduism, buddhism",
        "black, white, asian, latino, hispanic, arab, indigenous, african",
        "blacks, whites, asians, latinos, hispanics, arabs, africans",
        "mexican, chinese, indian, nigerian, polish, american, canadian, pakistani, turkish, syrian, irish, russian",
        "mexicans, indians, nigerians, americans, canadians, pakistanis, turks, syrians, russians, germans",
        "women, men",
        "woman, man",
        "girls, boys",
        "girl, boy",
        "immigrants, refugees, migrants, foreigners, tourists, students, workers, neighbours",
        "immigrant, refugee, migrant, foreigner, tourist, student, worker, neighbour",
        "disabled, blind, deaf, autistic, elderly, homeless, poor, young",
    )
)
"""Terms that can stand for each other in a sentence; a swap stays inside one row."""
_ROW_OF = {term: row for row in ROWS for term in row}
_TERM = re.compile(rf"\b(?:{'|'.join(sorted(_ROW_OF, key=len, reverse=True))})\b", re.IGNORECASE)


def another_group(text: str, rng: random.Random) -> str:
    """``text`` with one of the terms in it exchanged wherever it stands; unchanged if it names no group."""
    found = sorted({match.group().lower() for match in _TERM.finditer(text)})
    if not found:
        return text
    term = rng.choice(found)
    other = rng.choice([other for other in _ROW_OF[term] if other != term])

    def exchanged(match: re.Match[str]) -> str:
        here = match.group()
        if here.lower() != term:
            return here
        return other.upper() if here.isupper() else other.capitalize() if here[0].isupper() else other

    return _TERM.sub(exchanged, text)
