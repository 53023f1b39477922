"""Networks: built by name, converted from other codebases, read and written, run on a batch."""

from benchmark.runtime import openmmlab  # noqa: F401, I001  (registers mmseg's parts before anything asks for them)
from benchmark.models import cirkd  # noqa: F401  (registers its own)
