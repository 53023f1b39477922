"""The contract of a distillation method, and what authors of one build on."""

from benchmark.method.contract import Method, Part, Shapes, Taps
from benchmark.spec.definitions import IGNORE

__all__ = ["IGNORE", "Method", "Part", "Shapes", "Taps"]
