"""spconv, imported so that its answers are right.

Its loops over rows (the search for pairs, gather, scatter-add) use OpenMP. With two threads, the CPU wheel's scatter-add loses updates: a
few rows of nearly every answer are wrong. So these loops get one thread. The matrix products between them are torch's and get all
threads of the run. The wheel has its own OpenMP runtime, which reads its number of threads when it is loaded; `RTLD_DEEPBIND` makes the
wheel use that runtime, not torch's.
"""

import os
import sys

import torch

threads, flags = os.environ["OMP_NUM_THREADS"], sys.getdlopenflags()
os.environ["OMP_NUM_THREADS"] = "1"
sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
try:
    import spconv.core_cc  # noqa: F401
finally:
    os.environ["OMP_NUM_THREADS"] = threads
    sys.setdlopenflags(flags)

import spconv.pytorch as sp  # noqa: E402
from spconv.core import ConvAlgo  # noqa: E402
from spconv.pytorch import ops  # noqa: E402

# torch must not run any work here. It would start threads, which the forked process of a case lacks and would wait for forever.
torch.set_num_threads(int(threads))

__all__ = ["ConvAlgo", "ops", "sp"]
