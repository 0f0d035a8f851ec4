"""What holds for every test: threads that do not spin, set before torch is first imported."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
