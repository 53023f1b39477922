"""What tables, figures and reports know of methods by name: which are under test, and the order of their rows."""

STUDENT = "student"
"""The method that is none: the student without distillation."""

BASELINES = (STUDENT, "kd", "cwd", "skd", "fitnet", "at", "ifvd", "dsd", "cirkd", "mgd", "dist", "afdcd")
"""The order of rows; a method that is neither here nor under test comes after these, by name."""

UNDER_TEST = "heteroakd"
"""The method that the suite was built to examine: its rows come last, and its paper is the first source."""
