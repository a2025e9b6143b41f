"""Gives the tests eight simulated devices, and one compilation cache that the programs they start also use.

Compilation takes most of the time of the tests. XLA therefore compiles without optimisation, except in the longest slow
tests. The variables must be set before JAX starts.
"""

import os
import signal

from tests.paths import ROOT
from tests.versions import has_old_emitters

os.environ.setdefault("JAX_PLATFORMS", "cpu")
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
# Small programs are not worth splitting over threads.
FLAGS += " --xla_cpu_parallel_codegen_split_count=1"
# The older emitters of loops compile in 0.6 of the time. A process whose XLA does not know a flag is aborted.
FLAGS += " --xla_cpu_use_fusion_emitters=false" * has_old_emitters()
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".pytest_cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

# A shell starts background processes with SIGINT ignored, and programs started here would inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)
