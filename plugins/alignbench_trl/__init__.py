"""TRL's own trainers as algorithms, beside the built-in ones. TRL is the extra `trl`, and is imported when one of them is built; PPO's is in an
environment of its own."""

from alignbench import Register, hookimpl
from alignbench_trl import config


@hookimpl
def register_algorithms(register: Register) -> None:
    register("trl_dpo", config.DPOConfig, "alignbench_trl.pairs:DPO")
    register("trl_orpo", config.ORPOConfig, "alignbench_trl.pairs:ORPO")
    register("trl_cpo", config.CPOConfig, "alignbench_trl.pairs:CPO")
    register("trl_kto", config.KTOConfig, "alignbench_trl.labels:KTO")
    register("trl_grpo", config.GRPOConfig, "alignbench_trl.rollouts:GRPO")
    register("trl_rloo", config.RLOOConfig, "alignbench_trl.rollouts:RLOO")
    register("trl_online_dpo", config.OnlineDPOConfig, "alignbench_trl.online:OnlineDPO")
    register("trl_ppo", config.PPOConfig, "alignbench_trl.ppo:PPO")
