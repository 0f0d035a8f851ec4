"""The split of a list of names that makemore uses (github.com/karpathy/makemore)."""

import torch

from charlm.errors import CorpusError

SEED, HELD_OUT = 3407, 1000


def split_lines(text: str) -> dict[str, list[str]]:
    """Return the lines of a text for training, validation and test.

    The last thousand of a permutation are the test, as in makemore.py (torch's generator, its
    seed); the thousand before them, which makemore trains on, choose the best weights here.
    Raises CorpusError if there are too few lines.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) <= 2 * HELD_OUT:
        raise CorpusError(
            f"the text has {len(lines):,} lines; expected more than {2 * HELD_OUT:,}, of "
            "which 1,000 are held out twice"
        )
    generator = torch.Generator().manual_seed(SEED)
    order = torch.randperm(len(lines), generator=generator).tolist()
    shuffled = [lines[index] for index in order]
    rest, test = shuffled[:-HELD_OUT], shuffled[-HELD_OUT:]
    return {"train": rest[:-HELD_OUT], "valid": rest[-HELD_OUT:], "test": test}
