"""The harness: plan, train, evaluate, record, report. Nothing in here knows a particular method."""
