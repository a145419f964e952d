"""Direct preference optimisation and its family."""

from alignbench import Register, hookimpl
from alignbench_dpo import config, config_further
from alignbench_dpo.sampled import config as sampled


@hookimpl
def register_algorithms(register: Register) -> None:
    register("dpo", config.DPOConfig, "alignbench_dpo.offline:DPO")
    register("ipo", config.IPOConfig, "alignbench_dpo.offline:IPO")
    register("orpo", config.ORPOConfig, "alignbench_dpo.offline:ORPO")
    register("simpo", config.SimPOConfig, "alignbench_dpo.offline:SimPO")
    register("cpo", config.CPOConfig, "alignbench_dpo.offline:CPO")
    register("apo", config.APOConfig, "alignbench_dpo.weighed:APO")
    register("exo", config.EXOConfig, "alignbench_dpo.weighed:EXO")
    register("sppo", config.SPPOConfig, "alignbench_dpo.weighed:SPPO")
    register("ln_dpo", config.LengthNormalisedDPOConfig, "alignbench_dpo.weighed:LengthNormalisedDPO")
    register("wpo", config.WPOConfig, "alignbench_dpo.weighed:WPO")
    register("aot", config_further.AOTConfig, "alignbench_dpo.aot:AOT")
    register("tdpo", config_further.TDPOConfig, "alignbench_dpo.tdpo:TDPO")
    register("kto", config.KTOConfig, "alignbench_dpo.kto:KTO")
    register("bco", config.BCOConfig, "alignbench_dpo.bco:BCO")
    register("online_dpo", config.OnlineDPOConfig, "alignbench_dpo.online:OnlineDPO")
    register("iterative_dpo", config_further.IterativeDPOConfig, "alignbench_dpo.iterative:IterativeDPO")
    register("online_ipo", sampled.OnlineIPOConfig, "alignbench_dpo.sampled.online_ipo:OnlineIPO")
    register("xpo", sampled.XPOConfig, "alignbench_dpo.sampled.xpo:XPO")
    register("nash_md", sampled.NashMDConfig, "alignbench_dpo.sampled.nash_md:NashMD")
