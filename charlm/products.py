"""Products of matrices in numpy, without a warning that is not about their values.

On some processors OpenBLAS also computes with memory beyond the edge of a matrix. The result does
not depend on it, but if a NaN is there, numpy warns of an "invalid value encountered in matmul"
(https://github.com/numpy/numpy/issues/24067).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

quiet_products = np.errstate(invalid="ignore")
"""Decorator of a function that multiplies many matrices; a call costs a microsecond more.

Infinite and undefined results are as without it, and are reported where results are checked.
"""


@quiet_products
def product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return a @ b."""
    return np.asarray(a @ b)
