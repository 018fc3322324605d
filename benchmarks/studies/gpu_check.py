"""Check a GPU, once, by its owner: the short name of benchmarks/studies/gpu/gpu_check.py.

python -m benchmarks.studies.gpu_check --out gpu_check.json
"""

from benchmarks.studies.gpu.gpu_check import STUDY

__all__ = ["STUDY"]

if __name__ == "__main__":
    STUDY.main()
