"""Everything that touches mmengine and mmseg, and the embedded data set."""
