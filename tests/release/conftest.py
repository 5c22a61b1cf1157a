"""AWS, and a person in front of it, for promotions that are killed or run for real."""

from tests.support.promotion import cloud, run_record, works
from tests.support.promotion_calls import begin, front, promote

__all__ = ["begin", "cloud", "front", "promote", "run_record", "works"]
