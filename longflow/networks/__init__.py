"""Networks: modules with shapes in and shapes out, without knowledge of datasets."""

import os

# oneDNN (torch 2.15) writes beyond its memory in bf16 gradients of some 3D convolutions with AMX instructions: the
# process dies, or continues with damaged memory. oneDNN reads this variable before its first computation, hence here,
# where every network is imported from. A value that the user has set is kept. See test_precision.py
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
