"""Numbers behind the plans, each with the measurement that it comes from.

Most were measured with `scripts/measure_plans.py`; `scripts/experiments/LOG.md` explains them.
"""

DEFAULT_MINUTES = 7.0
"""Time that a run without a given length should take on this machine."""
HIDDEN_SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640, 768, 896, 1024)
"""Hidden sizes that a plan can choose."""
FREQUENT_ENTRIES = 10_000
"""Most entries of the vocabulary whose weights count when the size is chosen. One minute, one
layer, 2 threads with AMX, nats per token: WikiText-2 (33,278 entries) 2.901, 2.889, 2.882 with 96,
160, 256 units; 38,661 words of prose 3.052, 3.010, 3.018, 3.064 with 64, 128, 256, 384; Penn
Treebank (10,000) 2.494 and 2.542 with 256 and 384."""
MAX_HIDDEN_OF_ONE_LAYER = 448
"""Hidden size above which a plan has two layers instead of one."""
MAX_HIDDEN_OF_TEXT = (
    (3_000, 32), (20_000, 64), (60_000, 128), (200_000, 192), (400_000, 256), (700_000, 384),
    (2_000_000, 640),
)  # fmt: skip
"""Limits of training tokens, and the largest hidden size below each; above all: MAX_HIDDEN."""
MAX_HIDDEN = 1024
TRAINING_FRACTION = 0.9
"""Fraction of the time of a run that is spent on training steps; the rest is for validation and for
the best weights. Measured with one thread and `--minutes 1`: 0.93 for Shakespeare, 0.91 for names;
0.72 for words of Penn Treebank, whose few steps are followed by long validations."""
MIN_VALID_TOKENS = 40_000
"""Validation tokens that are read in any case: perplexity is then known to about 2 %."""
VALID_FRACTION = 0.25
"""Validation tokens that are read at most, for each token that is read in training."""
MEASURING_FRACTION = 0.005
"""Fraction of a given time, up to 5 seconds, in which the speed is measured. Five steps were too
few: 113, 156 and 204 billion operations a second within one minute of a quiet machine."""
OPERATIONS_PER_THREAD = 1e7
"""Operations of a layer's forward pass in one time step that make another thread worthwhile. Gain
of two threads over one, LSTM, 32 rows, bf16, a quiet AMD EPYC: 1.14 with 2 million, 0.98 with 9,
1.47 with 26, 1.52 with 52, 1.89 with 180. In the training kernels with AMX: 0.84 with 2.4 million,
0.95 with 9, 1.09 with 26, 1.39 with 52. On the EPYC with three other programs two threads
were 2 to 25 times slower than one, the smaller the model the worse."""
NOMINAL_SPEED = {"bf16": 1.4e11, "fp32": 6e10}
"""Assumed operations per second of a thread if no time is given, so that the plan does not depend
on the load. Measured: 220 to 350 billion in bf16 and 140 to 190 in fp32 with one thread of a quiet
AMD EPYC, 280 in bf16 with both of its cores; cautious in fp32, since processors without AVX-512 are
slower."""
NOMINAL_SPEED_OF_DEVICE = {"cuda": 1e13, "mps": 5e11}
"""Assumed operations per second of an accelerator. Steps in a CUDA graph on an H200 made 50
trillion with 2 x 512 and 64 sequences, 200 with 2 x 1024 and 128; others were not measured."""
MAX_HIDDEN_WITHOUT_TIME = 512
"""Largest hidden size if the length is given in steps or passes, so that the time is unknown."""
MAX_CHARACTER_TYPES = 256
"""Entries of a vocabulary below which its tokens are planned as characters."""
MAX_PASSES = 16
"""Most passes of a default run over a text of 1 MB; smaller texts get more."""
DEFAULT_BATCH = {"cpu": 32, "mps": 64, "cuda": 64}
"""Sequences side by side of a stream, by device."""
LARGE_TEXT = 2_000_000
"""Tokens of a stream above which a GPU reads twice as many sequences: 2 x 512 in a CUDA graph on an
H200 read 2.7 million tokens a second in 64 of them, 4.2 in 128."""
SHORT_RUN = 120.0
"""Seconds of training below which a CPU uses 16 sequences and half the usual window: more steps are
then worth more than fast ones. One minute of Shakespeare, 384 units: 1.455 with 16 x 32, 1.482 with
16 x 64; three minutes, 512 units: 1.419 with 16 x 32, 1.386 with 16 x 64, 1.385 with 32 x 64."""
MANY_PASSES = 1e-3
"""Seconds per token of a stream above which a CPU also makes small steps: the text is read dozens
of times, and small steps generalise better. 106,000 letters of Russian, 192 units, 49 passes: 1.775
with 16 x 32, 1.816 with 32 x 64."""
TOKENS_PER_STEP = 512
"""Tokens in a step if documents are short."""
SMALL_CORPUS_TOKENS = 1_000_000
"""Tokens of documents of letters below which an average of weights is kept with a constant learning
rate. On a list of names (0.2 million, 2 x 192) it gained 0.014 nats per character, and calibration
after it 0.033; 15 passes are enough, 35 too many."""
MAX_PASSES_SMALL_CORPUS = 7
"""MAX_PASSES for a small corpus of documents."""
DROPOUT = (0.015, 0.4)
"""Dropout for each pass after the fourth, and the most that is planned."""
MORE_DROPOUT_OF_WIDE = (8.0, 0.0175, 0.5)
"""Passes after which layers that are wider than a single layer of a plan get more dropout for each
pass, how much more, and the most for them. A GPU reads Shakespeare 20 times in 17 seconds: 2 x 640
with 0.25 and decay 0.01 had 1.438 after 8 passes and 1.497 after 20. With decay 0.1: 2 x 640, 0.4,
16 passes 1.389 (calibrated 1.364); 2 x 512, 0.5, 20 passes 1.395 (1.375)."""
PASSES_WITH_DECAY, WEIGHT_DECAY = (3.0, 10.0, 24.0), 0.1
"""The fewest passes over a stream for which adamw has this weight decay instead of 0.01, the most,
and the most for wide layers (20 were tried, see above). Six passes over Shakespeare, 2 x 384: 1.397
with 0.01, 1.382 with 0.1; Japanese 4.015, 3.999; words 5.561, 5.541. Fewer do not need it (two over
Shakespeare, 2 x 192: 1.522, 1.528), and more have enough dropout (13 over Russian, 1.788, 1.801).
Not tried: documents, fine-tuning."""
FINE_TUNING_RATE = 0.3
"""Learning rate of a fine-tuned run, as a fraction of its parent's. 90,000 letters from the
built-in `prose`, bits per character after 10 passes: Shakespeare 1.825 at 0.1 of the rate, 1.751 at
0.3, 1.747 at 1; film reviews 2.055, 2.020, 2.047. A foreign text gets the full rate: Russian, 12
passes over 36,000 characters, 3.809 at 0.3, 3.250 at 1."""
FINE_TUNING_PASSES = 0.4
"""Fraction of the passes from scratch after which fine-tuning mostly memorises. The same texts,
dropout 0.1 and 0.2: Shakespeare 1.776 after 5 passes, 1.751 after 10, 1.729 after 20; film reviews
2.032, 2.020, 2.023."""
FINE_TUNING_DROPOUT = (0.0075, 0.25)
"""As DROPOUT: the weights know more than the text can teach. 20 passes over Shakespeare: 1.729 with
0.2, 1.778 with 0.4; 10 passes over film reviews: 2.027 with 0.05, 2.020 with 0.2, 2.057 with 0.4.
"""
MAX_TOKENS_OF_NGRAMS = 20_000_000
"""Tokens of the longest training text on which n-grams are fitted beside the network."""
FEW_TOKENS = 300_000
"""Tokens below which a run ends before its time if it has made all useful passes. 100,000 letters
read 100 times by 192 units gave models 1.1 and 1.3 % worse than read 50 times; longer texts were
not tried."""
SHORT_TEXT, SHORTER_TEXT = "the text is short", "the whole text is shorter"
"""Reasons for smaller windows, reported at the start."""
LONG_DOCUMENT_TOKENS = 1000
"""Mean tokens of documents above which they are planned as one stream; not measured."""
