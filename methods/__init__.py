"""The methods under test, one file each, under the same contract as `baselines`."""
