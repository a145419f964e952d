"""Whether all weights are numbers."""

from __future__ import annotations

from torch import Tensor, nn

from alignbench import UserError


def check_weights(model: nn.Module) -> None:
    """Raises UserError where a weight is not a finite number: nothing that such a model says could be trusted."""
    for name, value in (*model.state_dict().items(), *_means_of_scales(model)):
        if value.is_floating_point() and value.numel() and not all(bool(end.isfinite()) for end in value.aminmax()):
            raise UserError(f"The weights of the model hold NaN or infinite numbers ({name}): get the checkpoint anew.")


def _means_of_scales(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Of layers in four bits, whose other tensors hide a NaN."""
    states = ((name, getattr(getattr(m, "weight", None), "quant_state", None)) for name, m in model.named_modules())
    return [(f"{name}.weight", state.offset) for name, state in states if getattr(state, "offset", None) is not None]
