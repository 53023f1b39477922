from datetime import datetime

from slurm.queue import Seen, expand, read_config, read_sacct, read_squeue


def test_squeue_lines_are_read_whatever_others_call_their_jobs():
    text = (
        "7_0|RUNNING|2026-11-25T08:00:00|None|tiny.1\n7_1|PENDING|N/A|Dependency|tiny.1\n9|PENDING|N/A|Priority|a|b\n\n"
    )
    assert read_squeue(text) == {
        "7_0": Seen("RUNNING", "tiny.1", started=datetime(2026, 11, 25, 8).timestamp()),
        "7_1": Seen("PENDING", "tiny.1", reason="Dependency"),
        "9": Seen("PENDING", "a|b", reason="Priority"),
    }


def test_of_a_requeued_job_the_latest_attempt_counts():
    text = (
        "7_0|NODE_FAIL|0:0|2026-11-25T08:00:00|tiny.1\n"
        "7_0|FAILED|1:0|2026-11-25T08:05:00|tiny.1\n"
        "8|CANCELLED by 0|0:15|2026-11-25T08:00:00|tiny.2\n"
    )
    found = read_sacct(text)
    assert (found["7_0"].state, found["7_0"].exit_code) == ("FAILED", "1:0")
    assert found["8"].state == "CANCELLED" and not found["8"].live


def test_elements_that_never_ran_share_a_row():
    assert expand("7_[0,3-5%2]") == ["7_0", "7_3", "7_4", "7_5"]
    assert expand("7_12") == ["7_12"] and expand("7") == ["7"]
    found = read_sacct("7_[1-2]|CANCELLED|0:0|2026-11-25T08:00:00|tiny.1\n")
    assert set(found) == {"7_1", "7_2"}


def test_the_configuration_is_read():
    config = read_config("Configuration data as of x\nMaxArraySize            = 1001\nClusterName   = ci\n\nA = b=c\n")
    assert config == {"MaxArraySize": "1001", "ClusterName": "ci", "A": "b=c"}
