"""The types that hints of several modules name."""

from __future__ import annotations

from typing import TypeAlias

from numpy.typing import ArrayLike
from scipy.sparse import sparray, spmatrix

#: What scikit-learn's documentation calls {array-like, sparse matrix}.
MatrixLike: TypeAlias = ArrayLike | spmatrix | sparray
