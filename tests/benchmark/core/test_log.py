from __future__ import annotations

import subprocess
import sys

SPEAK = """
import logging
{before}
logging.getLogger("benchmark.records.record").info("a line of progress")
logging.getLogger("slurm.task").warning("error: a line about 100 %s")
logging.getLogger("benchmark.core").debug("never shown")
logging.getLogger("elsewhere").info("nor this")
"""


def said(before: str) -> tuple[str, str]:
    """What a fresh Python prints where our packages speak."""
    command = [sys.executable, "-c", SPEAK.format(before=before)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_a_command_shows_plain_lines_once_progress_on_stdout_and_warnings_on_stderr() -> None:
    shown = said("from benchmark.core.log import show_messages; show_messages(); show_messages()")
    assert shown == ("a line of progress\n", "error: a line about 100 %s\n")


def test_whoever_imports_the_library_gets_warnings_alone_until_they_ask_for_more() -> None:
    assert said("import benchmark.records.record") == ("", "error: a line about 100 %s\n")
    asked = said("import sys; logging.basicConfig(level='INFO', stream=sys.stdout, format='%(name)s: %(message)s')")
    assert asked[0].splitlines()[0] == "benchmark.records.record: a line of progress"
