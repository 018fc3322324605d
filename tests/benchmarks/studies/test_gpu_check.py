"""The short name of the check of a GPU."""

from benchmarks.studies.gpu import gpu_check as long_name
from benchmarks.studies.gpu_check import STUDY


def test_it_is_the_same_study_and_its_records_name_it():
    assert STUDY is long_name.STUDY
    assert STUDY.module == "benchmarks.studies.gpu_check"
