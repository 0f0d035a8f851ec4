"""The numbers that plans are made by, each with the measurement that it comes from.

Most are of `scripts/measure_plans.py`; its results are beside it, and what they say is in
`scripts/experiments/LOG.md`.
"""

DEFAULT_MINUTES = 7.0
"""Time that a run without a given length aims at, on the machine that it starts on."""
HIDDEN_SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640, 768, 896, 1024)
"""Hidden sizes that a plan chooses from."""
MAX_HIDDEN_OF_ONE_LAYER = 448
"""Units beyond which two layers are planned in place of one."""
MAX_HIDDEN_OF_TEXT = (
    (3_000, 32), (20_000, 64), (60_000, 128), (200_000, 192), (400_000, 256), (700_000, 384),
    (2_000_000, 640),
)  # fmt: skip
"""Training tokens below which the hidden size is at most this; beyond the last, see MAX_HIDDEN."""
MAX_HIDDEN = 1024
MEASURING_FRACTION = 0.005
"""Share of a given time, up to 5 seconds, in which the machine's speed is measured. Five steps were
too few: 113, 156 and 204 billion operations a second within one minute of a quiet machine."""
OPERATIONS_PER_THREAD = 1e7
"""Operations of a layer's forward pass in one time step that a thread must have to be worth waiting
for. Gain of two threads over one, LSTM, 32 rows, bf16, a quiet AMD EPYC: 1.14 with 2 million, 0.98
with 9, 1.47 with 26, 1.52 with 52, 1.89 with 180. On the same machine with three other programs two
threads were 2 to 25 times slower than one, the smaller the model the worse."""
NOMINAL_SPEED = {"bf16": 1.4e11, "fp32": 6e10}
"""Operations a second of a thread that a plan without a given time counts with, so that it does not
depend on what else the machine does. Measured: 220 to 350 billion in bf16 and 140 to 190 in fp32
with one thread of a quiet AMD EPYC, 280 in bf16 with both of its cores; cautious in fp32, since
processors without AVX-512 are slower."""
NOMINAL_SPEED_OF_DEVICE = {"cuda": 2e12, "mps": 5e11}
"""The same of accelerators; not measured."""
MAX_HIDDEN_WITHOUT_TIME = 512
"""The hidden size is at most this where the length is given and the time is not known."""
MAX_CHARACTER_TYPES = 256
"""Entries below which tokens are treated as letters, whatever their unit is called."""
MAX_PASSES = 16
"""Passes over a 1 MB text that a default run makes at most; smaller texts get more."""
DEFAULT_BATCH = {"cpu": 32, "mps": 64, "cuda": 64}
"""Rows of a stream."""
SHORT_RUN = 120.0
"""Seconds of training below which a processor reads 16 rows, and windows of half the usual length:
more steps are worth more than fast ones then. One minute of Shakespeare, 384 units: 1.455 with
16 x 32, 1.482 with 16 x 64; three minutes, 512 units: 1.419 with 16 x 32, 1.386 with 16 x 64, 1.385
with 32 x 64."""
MANY_PASSES = 1e-3
"""Seconds for each token of a stream beyond which the same holds: it is read dozens of times, and
small steps generalise better. 106,000 letters of Russian, 192 units, 49 passes: 1.775 with 16 x 32,
1.816 with 32 x 64."""
TOKENS_PER_STEP = 512
"""Tokens that a step should hold when documents are short."""
SMALL_CORPUS_TOKENS = 1_000_000
"""Tokens of documents of letters below which an average of weights is kept, under a constant
learning rate. On a list of names (0.2 million, 2 x 192) it gained 0.014 nats per character, and
calibration after it 0.033; 15 passes are enough, 35 too many."""
MAX_PASSES_SMALL_CORPUS = 7
FEW_TOKENS = 300_000
"""Tokens below which a time is not used up where the useful passes take less of it. 100,000 letters
read 100 times by 192 units gave models 1.1 and 1.3 % worse than read 50 times; longer texts: not
tried."""
SHORT_TEXT, SHORTER_TEXT = "the text is short", "the whole text is shorter"
"""Why windows are smaller than they were to be: told at the start."""
LONG_DOCUMENT_TOKENS = 1000
"""Tokens of documents, on average, beyond which they are planned as one text is; not measured."""
