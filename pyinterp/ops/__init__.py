"""The ops: plain-torch references for every device, compiled kernels where they were built."""

from pyinterp.ops.and_or_solve import and_or_solve
from pyinterp.ops.elastic_prox import elastic_prox
from pyinterp.ops.gate import gate
from pyinterp.ops.gated_affine import gated_affine
from pyinterp.ops.gram_descent import gram_descent
from pyinterp.ops.mask_inputs import mask_inputs
from pyinterp.ops.softmax_residual import softmax_residual_
from pyinterp.ops.subset_sum import subset_sum

__all__ = [
    "and_or_solve",
    "elastic_prox",
    "gate",
    "gated_affine",
    "gram_descent",
    "mask_inputs",
    "softmax_residual_",
    "subset_sum",
]
