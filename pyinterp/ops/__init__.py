"""The ops: plain-torch references for every device, compiled kernels where they were built."""

from pyinterp.ops.and_or_solve import and_or_solve
from pyinterp.ops.gate import gate
from pyinterp.ops.gated_affine import gated_affine
from pyinterp.ops.mask_inputs import mask_inputs
from pyinterp.ops.subset_sum import subset_sum

__all__ = ["and_or_solve", "gate", "gated_affine", "mask_inputs", "subset_sum"]
