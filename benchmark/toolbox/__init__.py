"""Everything that touches mmengine and mmseg, and the embedded data set.

Importing it imports both, without the lines that they print about parts we do not use.
"""

import logging
import warnings
from contextlib import redirect_stdout
from io import StringIO

with redirect_stdout(StringIO()), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmseg.datasets
    import mmseg.models  # noqa: F401
    from mmengine.logging import MMLogger

MMLogger.get_instance("kdseg", log_level=logging.WARNING)
