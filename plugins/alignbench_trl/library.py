"""TRL itself, of the one minor version that this plugin was written against: methods of its trainers are overridden here."""

# ruff: noqa: E402 (what TRL is, is asked before it is imported)

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

from alignbench import UserError

SERIES = "1.16"


def check_version() -> None:
    """Raises UserError where TRL is missing, or is another: parts of its trainers would be other ones."""
    try:
        found = version("trl")
    except PackageNotFoundError:
        raise UserError("TRL is not installed: pip install 'alignbench[trl]'") from None
    if not found.startswith(f"{SERIES}."):
        raise UserError(f"TRL {found} is installed, and this needs {SERIES}: pip install 'alignbench[trl]'")


check_version()
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from trl import DPOConfig as DPOConfig
from trl import DPOTrainer as DPOTrainer
from trl import GRPOConfig as GRPOConfig
from trl import GRPOTrainer as GRPOTrainer
from trl import KTOConfig as KTOConfig
from trl import KTOTrainer as KTOTrainer
from trl import RLOOConfig as RLOOConfig
from trl import RLOOTrainer as RLOOTrainer
from trl.experimental.cpo import CPOConfig as CPOConfig
from trl.experimental.cpo import CPOTrainer as CPOTrainer
from trl.experimental.online_dpo import OnlineDPOConfig as OnlineDPOConfig
from trl.experimental.online_dpo import OnlineDPOTrainer as OnlineDPOTrainer
from trl.experimental.orpo import ORPOConfig as ORPOConfig
from trl.experimental.orpo import ORPOTrainer as ORPOTrainer
from trl.trainer import grpo_trainer as grpo_trainer
from trl.trainer import rloo_trainer as rloo_trainer
