"""A folder with a pretrained model, read by transformers: what is wrong with it is one line, and nothing is made up."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench.errors import AlignbenchError, UserError
from alignbench.pretrained import weights
from alignbench.pretrained.files import CONFIG, Stored, check_texts, json_object, stored, tokens_of
from alignbench.pretrained.hub import one_line
from alignbench.pretrained.templates import check_ends

if TYPE_CHECKING:
    import torch

_SAFE = {"local_files_only": True, "trust_remote_code": False}
_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Checkpoint:
    """A folder of a model, which the setting `setting` named (empty: none did).

    Weights are read from safetensors only, code that comes with a model is never run, and whatever a file lacks or whatever
    a library says about a damaged one is a UserError."""

    folder: Path
    setting: str = ""

    def check(self) -> None:
        """Raises UserError for what can be seen without reading a weight: files that are damaged, cut off or not there, what
        is no model, and models that transformers does not know."""
        self._refuse_adapter()
        check_texts(self.folder)
        stored(self.folder)
        self.config()

    def config(self) -> Any:
        """The model's configuration, as transformers has it. Needs no weights."""
        from transformers import CONFIG_MAPPING, AutoConfig, __version__

        path = self.folder / CONFIG
        said = json_object(path)
        kind, code = said.get("model_type"), said.get("auto_map")
        if not isinstance(kind, str) or not kind:
            raise UserError(f"{path} names no model_type: restore the config that belongs to the weights.")
        if kind not in CONFIG_MAPPING:
            if code:
                raise UserError(
                    f"{path}: a {kind!r} is computed by Python files of its own, and code that comes with a model is never run. "
                    f"Use a model that transformers knows{self._remedy}."
                )
            raise UserError(
                f"{path}: model_type={kind!r} is unknown to transformers {__version__}: install one that knows it, or use another "
                f"model{self._remedy}."
            )
        with self.reading("its config"):
            return AutoConfig.from_pretrained(self.folder, **_SAFE)

    def tokenizer(self) -> Any:
        """Its tokenizer, by transformers. Raises UserError where there is none, or one that cannot be used."""
        from transformers import AutoTokenizer

        with self.reading("its tokenizer"):
            found = AutoTokenizer.from_pretrained(self.folder, **_SAFE)
            found("a")  # a wrong setting may show in use alone
        if {*found.get_vocab()} <= {*found.all_special_tokens}:  # some classes make one out of nothing
            raise UserError(
                f"{self.folder} holds no tokenizer, or one without tokens: add the model's own (tokenizer.json)."
            )
        check_ends(found.chat_template, str(self.folder))
        return found

    def model(
        self,
        kind: Any,
        *,
        device: torch.device,
        dtype: torch.dtype | str = "auto",
        tokenizer: Any = None,
        quantization: Any = None,
        spare: Sequence[str] = (),
        less: Sequence[str] = (),
        shards: int = 1,
        **options: Any,
    ) -> Any:
        """The model of `kind`, an auto class of transformers, on `device`. All that can be known without its weights is
        checked first, then that they are finite, and then they are read.

        `tokenizer`: whose tokens must have an embedding each. `quantization`: how to quantise weights that are
        not yet (a BitsAndBytesConfig). `spare`: parts of the names of weights that need not be there. `less`: settings that take less
        memory. `shards`: among how many processes its layers are divided; each reads its own part alone."""
        from alignbench import functional

        self._refuse_adapter()
        held, config = stored(self.folder), self.config()
        weights.check_sizes(self.folder, json_object(self.folder / CONFIG), held)
        how = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True, **_SAFE, **options}
        packed = getattr(config, "quantization_config", None) is not None
        if shards > 1 and (packed or quantization is not None):
            raise UserError(f"{self.folder}: quantised weights cannot be divided among processes. Use plain ones.")
        with self.reading(), quiet():
            plan = self._packed(kind, config, held) if packed else self._plan(kind, how, spare)
        if tokenizer is not None:
            check_vocabulary(self.folder, tokenizer, plan)
        with self.reading():
            weights.check_room(held.bytes if packed else _bytes(plan, quantization) // shards, device, less)
            weights.check_finite(held)
        if quantization is not None and not packed:
            how["quantization_config"] = quantization
        with self.reading(), quiet(), functional.within_memory(f"loading {self.folder}", *less):
            where = {"device_map": {"": device}} if shards == 1 else {"distributed_config": divided(plan, shards)}
            model, report = kind.from_pretrained(self.folder, **where, **how)
        if packed:
            weights.check_report(self.folder, model, report, spare)
        return model

    def _plan(self, kind: Any, how: dict[str, Any], spare: Sequence[str]) -> Any:
        """The model without storage, loaded as it will be: what it finds in the files is then known, in every architecture's
        own names and shapes."""
        plan, report = kind.from_pretrained(
            self.folder, device_map={"": "meta"}, **{**how, "ignore_mismatched_sizes": True}
        )
        weights.check_report(self.folder, plan, report, spare)
        return plan

    def _packed(self, kind: Any, config: Any, held: Stored) -> Any:
        import copy

        import torch

        plain = copy.deepcopy(config)
        vars(plain).pop("quantization_config")
        with torch.device("meta"):
            plan = kind.from_config(plain)
        weights.check_packed(self.folder, plan, held)
        return plan

    @contextlib.contextmanager
    def reading(self, what: str = "") -> Iterator[None]:
        """Whatever a library raises about the folder's content, in one line."""
        try:
            yield
        except AlignbenchError:
            raise
        except BaseException as error:
            # A panic of the tokenizers library is none of Python's exceptions.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            part = f" ({what})" if what else ""
            raise UserError(f"{self.folder} cannot be loaded{part}: {one_line(error)}{self._remedy}") from error

    @property
    def _remedy(self) -> str:
        return f" (named by {self.setting})" if self.setting else ""

    def _refuse_adapter(self) -> None:
        if not (self.folder / _ADAPTER).is_file():
            return
        base = json_object(self.folder / _ADAPTER).get("base_model_name_or_path") or "a base that it does not name"
        if (self.folder / CONFIG).is_file():
            raise UserError(
                f"{self.folder} holds a model and an adapter ({_ADAPTER}), which would be added to it unasked: move the adapter "
                "elsewhere, or merge the two (peft's merge_and_unload) and save the result."
            )
        raise UserError(
            f"{self.folder} is an adapter and not a model: it was trained on {base}. Use that"
            f"{f' as {self.setting}=' if self.setting else ''}, or one model of the two: `alignbench export RUN --merged`, or "
            "peft's merge_and_unload."
        )


def check_vocabulary(folder: Path, tokenizer: Any, model: Any) -> None:
    """Raises UserError for tokens without a row in the model's embedding: to look one up is an error in the middle of a run,
    and on a GPU it ends the process."""
    rows = model.get_input_embeddings().weight.shape[0]
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    if not beyond:
        return
    # A tokenizer's class may add tokens of its own family that its files do not have (Qwen2's does): nothing writes them.
    own = tokens_of(folder)
    used = {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}
    if odd := [token for token, number in beyond.items() if own is None or token in own or number in used]:
        raise UserError(
            f"{folder}: the tokenizer has tokens that the model's embedding of {rows} rows lacks ({weights.some(odd)}). Use the "
            "tokenizer that the model was trained with, or resize the embedding (resize_token_embeddings) and train it."
        )


def _bytes(model: Any, quantization: Any) -> int:
    """What a model's parameters and buffers take, at the least."""
    tensors = [*model.parameters(), *model.buffers()]
    if quantization is None:
        return sum(int(tensor.nbytes) for tensor in tensors)
    return sum(int(tensor.numel()) for tensor in tensors) // (2 if quantization.load_in_4bit else 1)


def divided(plan: Any, shards: int) -> Any:
    """How transformers is to divide a model, by torch's `fully_shard`: each module that the model's own plan names is put together
    for the time of its pass. `plan`: the model without storage. Raises UserError for a model whose plan leaves weights out."""
    from transformers.distributed import DistributedConfig

    output = next((name for name, module in plan.named_modules() if module is plan.get_output_embeddings()), "")
    parts = {name: "free_full_weight" for name in plan.fsdp_plan if name != output}
    patterns = [re.escape(name).replace(r"\*", r"\d+") for name in plan.fsdp_plan]
    named = re.compile(rf"(?:{'|'.join(patterns) or '(?!)'})\..+")
    if left := [name for name, _ in plan.named_parameters() if not named.fullmatch(name)]:
        raise UserError(
            f"A {type(plan).__name__} cannot be divided among processes: the plan that transformers has for it leaves out "
            f"{weights.some(left)}. Use model.shard=false."
        )
    return DistributedConfig(fsdp_size=shards, fsdp_plan=parts)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers from telling in tables what is checked here."""
    from transformers.utils import logging as theirs

    logger = logging.getLogger("transformers")
    level, bars = logger.level, theirs.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            theirs.enable_progress_bar()
