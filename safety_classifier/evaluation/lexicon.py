"""A small word list a head: the baseline that every classifier must beat. As naive as such lists are."""

from __future__ import annotations

import re

_WORDS: dict[str, str] = {
    "hate_speech": "nigg(?:a|er)s?|fag(?:got)?s?|kikes?|chinks?|spics?|tranny|trannies|dykes?|wetbacks?|retards?"
    "|towelheads?|subhumans?|vermin|infidels?|go back to your country|inferior race|master race|white power"
    "|ethnic cleansing",
    "self_harm": r"suicid\w*|kill myself|end my life|cut(?:ting)? myself|self[- ]harm\w*|want to die|overdos\w*"
    r"|hang myself|anorexi\w*|bulimi\w*|better off dead|no reason to live|hurt myself",
    "dangerous_advice": r"bombs?|explosives?|poison\w*|meth|cocaine|heroin|weapons?|guns?|hack(?:ing)?|malware"
    r"|phishing|counterfeit|launder\w*|steal\w*|ransomware|detonat\w*|forg(?:e|ing)|smuggl\w*|bleach|untraceable",
    "toxicity": r"fuck\w*|shit\w*|bitch\w*|asshole\w*|idiots?|morons?|stupid|dumb|loser|pathetic|bastards?|cunts?"
    r"|dick(?:head)?s?|trash|crap|shut up|scum|whores?|sluts?|jerk|wank\w*|worthless",
    "violence": r"kill\w*|murder\w*|stab\w*|shoot\w*|shot|blood\w*|behead\w*|tortur\w*|massacre\w*|beat up|slaughter\w*"
    r"|strangl\w*|bomb\w*|lynch\w*",
    "sexual": r"sex\w*|porn\w*|nude\w*|naked|horny|orgasm\w*|penis|vagina|cock|pussy|erotic\w*|blowjob\w*"
    r"|masturbat\w*|cum",
    "refusal": "i(?:'m| am) sorry|i can(?:'t|not| not)|i(?:'m| am) (?:not able|unable)|i won't|as an ai|not appropriate"
    "|i (?:do not|don't) feel comfortable|illegal|unethical",
    "harmful_response": r"step 1|first, you|you will need|here(?:'s| is) how|you could|sure|fuck\w*|kill\w*",
}
LEXICON: dict[str, re.Pattern[str]] = {
    head: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for head, words in _WORDS.items()
}
"""Head to the pattern of its words. Preference heads count ``harmful_response`` words against a response."""
