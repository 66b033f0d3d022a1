"""The ops: plain-torch references for every device, compiled kernels where they were built."""

from pyinterp.ops.gate import gate
from pyinterp.ops.gated_affine import gated_affine
from pyinterp.ops.mask_inputs import mask_inputs

__all__ = ["gate", "gated_affine", "mask_inputs"]
