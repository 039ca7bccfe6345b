"""The tests of fentry and the bed they stand in."""
