"""The optimizers and the schedules of the learning rate that come along, registered through the door that is everybody's."""

from alignbench.hookspecs import Register, hookimpl
from alignbench.optimization.config import (
    AdamWConfig,
    ConstantConfig,
    CosineConfig,
    LinearConfig,
    MuonConfig,
    PagedAdamW8bitConfig,
    ScheduleFreeConfig,
    WSDConfig,
)


@hookimpl
def register_optimizers(register: Register) -> None:
    register("adamw", AdamWConfig, "alignbench.optimization.adamw:adamw")
    register("paged_adamw_8bit", PagedAdamW8bitConfig, "alignbench.optimization.adamw:paged_adamw_8bit")
    register("muon", MuonConfig, "alignbench.optimization.muon:Muon")
    register("schedule_free", ScheduleFreeConfig, "alignbench.optimization.schedule_free:ScheduleFreeAdamW")


@hookimpl
def register_schedules(register: Register) -> None:
    register("constant", ConstantConfig, "alignbench.optimization.schedules:constant")
    register("linear", LinearConfig, "alignbench.optimization.schedules:linear")
    register("cosine", CosineConfig, "alignbench.optimization.schedules:cosine")
    register("wsd", WSDConfig, "alignbench.optimization.schedules:wsd")
