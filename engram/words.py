"""Words of an instruction as numbers, by hash: a vocabulary that needs no list."""

import re
import zlib


def word_ids(text: str, vocabulary: int, most: int) -> list[int]:
    """Ids (1..vocabulary-1) of the words, padded with 0 to `most`; longer text is cut."""
    words = re.findall(r"[a-z0-9]+", text.lower())[:most]
    return [1 + zlib.crc32(word.encode()) % (vocabulary - 1) for word in words] + [0] * (most - len(words))
