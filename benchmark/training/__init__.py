"""The cohort trainer: the same batches and one teacher pass for all runs of a job."""
