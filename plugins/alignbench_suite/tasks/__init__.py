"""The suite's questions as tasks of lm-eval, for any model that lm-eval can reach:

    lm_eval --include_path "$(python -m alignbench_suite.tasks)" --tasks alignbench_sycophancy --apply_chat_template ...

One folder a family: a YAML file a task, and beside it the Python that makes its questions and scores the answers. Each family
has two groups: `alignbench_<family>` brings its questions along; `alignbench_<family>_public` asks those of public data sets,
from the hub or from a folder (`files.py`).
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent

FAMILIES = ("helpfulness", "sycophancy", "diversity", "capability")

PUBLIC = {
    "alignbench_ifeval": "ifeval/input_data.jsonl",
    "alignbench_noveltybench": "noveltybench/curated.jsonl",
    "alignbench_opinion_nlp": "mwe-sycophancy-subset/nlp_survey.jsonl",
    "alignbench_opinion_politics": "mwe-sycophancy-subset/political_typology.jsonl",
    "alignbench_suggestion_truthfulqa": "truthfulqa/mc_task.json",
    "alignbench_truthfulqa_mc1": "truthfulqa/mc_task.json",
    "alignbench_truthfulqa_mc2": "truthfulqa/mc_task.json",
}
"""The tasks of the public groups, each with the file that it reads in a folder of evaluation data."""

POOL = "pushback-transcripts/pool.jsonl"
"""Factual questions with their accepted answers, which pushback asks."""
