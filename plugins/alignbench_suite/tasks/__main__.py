"""Prints the folder for lm_eval --include_path."""

from alignbench_suite.tasks import FOLDER

print(FOLDER)
