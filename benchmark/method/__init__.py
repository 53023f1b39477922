"""The contract of a distillation method, and what authors of one build on."""

from benchmark.method.contract import IGNORE, Method, Part, Shapes, Taps

__all__ = ["IGNORE", "Method", "Part", "Shapes", "Taps"]
