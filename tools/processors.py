"""Run the tests as other processors would: sums in another order, and last bits that differ.

numpy, OpenBLAS and torch choose their loops by what the processor can do, and OpenBLAS splits its work among
threads. Each run takes some of that away, so that a test that hangs on the last bits of one machine fails
here. What is given on the command line goes to pytest, for instance which tests to run.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np


def settings() -> dict[str, dict[str, str]]:
    """What each run sets in its environment."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    beyond = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    oldest = {"NPY_DISABLE_CPU_FEATURES": " ".join(beyond), "ATEN_CPU_CAPABILITY": "default"}
    return {
        "numpy's baseline, the oldest loops of OpenBLAS and torch, one thread": {
            **(oldest if beyond else {}),
            **({"OPENBLAS_CORETYPE": "Nehalem"} if x86 else {}),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        },
        "OpenBLAS and torch without AVX-512, two threads": {
            **({"OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2"} if x86 else {}),
            "OPENBLAS_NUM_THREADS": "2",
            "OMP_NUM_THREADS": "2",
        },
    }


def main() -> None:
    """Run them one after the other, and say at the end which were red."""
    failed = []
    for name, changes in settings().items():
        print(f"{name}:", " ".join(f"{key}='{value}'" for key, value in changes.items()), flush=True)
        command = [sys.executable, "-m", "pytest", *sys.argv[1:]]
        if subprocess.run(command, env=os.environ | changes, check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit("red with " + "; and with ".join(failed))


if __name__ == "__main__":
    main()
