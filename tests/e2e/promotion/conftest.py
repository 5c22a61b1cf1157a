"""AWS, and a person in front of it."""

from tests.support.promotion import cloud, dies, person, run_record, small_bundle, works
from tests.support.promotion_calls import begin, front, promote

__all__ = [
    "begin",
    "cloud",
    "dies",
    "front",
    "person",
    "promote",
    "run_record",
    "small_bundle",
    "works",
]
