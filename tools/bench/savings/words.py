"""Text that compresses as text does: words of a made-up language, the frequent ones very frequent."""

from __future__ import annotations

import random
from itertools import accumulate

VOCABULARY = 20_000
SYLLABLES = "ba be bi bo da de di do fa fe ka ke ki ko la le li lo ma me mi mo na ne ni no ra re ri ro sa se si so ta te ti to"


class Words:
    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        syllables = SYLLABLES.split()
        self._words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(VOCABULARY)]
        self._weights = list(accumulate(1 / (rank + 2.7) for rank in range(VOCABULARY)))

    def word(self, rng: random.Random) -> str:
        return self.several(rng, 1)[0]

    def several(self, rng: random.Random, count: int) -> list[str]:
        return rng.choices(self._words, cum_weights=self._weights, k=count)

    def sentence(self, rng: random.Random, count: int) -> str:
        return " ".join(self.several(rng, count))

    def name(self, rng: random.Random) -> str:
        return f"{rng.choice(self._words).title()} {rng.choice(self._words).title()}"
