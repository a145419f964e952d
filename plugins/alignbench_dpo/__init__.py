"""Direct preference optimisation and its family."""

from alignbench import Register, hookimpl
from alignbench_dpo.config import DPOConfig, IPOConfig, KTOConfig, OnlineDPOConfig, ORPOConfig, SimPOConfig


@hookimpl
def register_algorithms(register: Register) -> None:
    register("dpo", DPOConfig, "alignbench_dpo.offline:DPO")
    register("ipo", IPOConfig, "alignbench_dpo.offline:IPO")
    register("orpo", ORPOConfig, "alignbench_dpo.offline:ORPO")
    register("simpo", SimPOConfig, "alignbench_dpo.offline:SimPO")
    register("kto", KTOConfig, "alignbench_dpo.kto:KTO")
    register("online_dpo", OnlineDPOConfig, "alignbench_dpo.online:OnlineDPO")
