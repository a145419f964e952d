"""Policy gradients without a value network: RLOO, GRPO and what followed them."""

from alignbench import Register, hookimpl
from alignbench_group.config import (
    CISPOConfig,
    DAPOConfig,
    GDPOConfig,
    GRPOConfig,
    GSPOConfig,
    MaxRLConfig,
    ReinforcePPBaselineConfig,
    ReinforcePPConfig,
    RLOOConfig,
    SAPOConfig,
)


@hookimpl
def register_algorithms(register: Register) -> None:
    register("rloo", RLOOConfig, "alignbench_group.rloo:RLOO")
    register("grpo", GRPOConfig, "alignbench_group.grpo:GRPO")
    register("dapo", DAPOConfig, "alignbench_group.grpo:DAPO")
    register("gdpo", GDPOConfig, "alignbench_group.gdpo:GDPO")
    register("gspo", GSPOConfig, "alignbench_group.sequence:GSPO")
    register("cispo", CISPOConfig, "alignbench_group.soft:CISPO")
    register("sapo", SAPOConfig, "alignbench_group.soft:SAPO")
    register("reinforce_pp", ReinforcePPConfig, "alignbench_group.reinforce_pp:ReinforcePP")
    register("reinforce_pp_baseline", ReinforcePPBaselineConfig, "alignbench_group.reinforce_pp:ReinforcePPBaseline")
    register("maxrl", MaxRLConfig, "alignbench_group.maxrl:MaxRL")
