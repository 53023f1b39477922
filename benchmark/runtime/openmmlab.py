"""OpenMMLab's registries: importing this registers mmseg's parts, without what it prints about those we do not use."""

import logging
import warnings
from contextlib import redirect_stdout
from io import StringIO

with redirect_stdout(StringIO()), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mmengine.logging import MMLogger
    from mmseg.utils import register_all_modules

    register_all_modules()

# mmengine's own log is a line per initialised parameter
MMLogger.get_instance("kdseg", log_level=logging.WARNING)
