"""Preferences, demonstrations and prompts from any file or hub id, rankings that people have already given, and a filter of demonstrations."""

from alignbench import Register, hookimpl
from alignbench_data import layouts
from alignbench_data.config import FilterConfig, PreferencesConfig, RecordedConfig


@hookimpl
def register_data(register: Register) -> None:
    register("preferences", PreferencesConfig, "alignbench_data.source:PreferencesData")


@hookimpl
def register_annotators(register: Register) -> None:
    register("recorded", RecordedConfig, "alignbench_data.recorded:RecordedAnnotator")


@hookimpl
def register_stages(register: Register) -> None:
    register("filter_demonstrations", FilterConfig, "alignbench_data.filtering:Filter")


@hookimpl
def register_formats(register: Register) -> None:
    formats = "alignbench_data.formats"
    register("message_trees", layouts.MessageTreesConfig, f"{formats}.trees:Trees")
    register("reward_bench_2", layouts.RewardBench2Config, f"{formats}.benchmarks:RewardBench2")
    register("rm_bench", layouts.RMBenchConfig, f"{formats}.benchmarks:RMBench")
    register("dialogues", layouts.DialoguesConfig, f"{formats}.pairs:Dialogues")
    register("pairs", layouts.PairsConfig, f"{formats}.pairs:Pairs")
    register("labelled_pairs", layouts.LabelledPairsConfig, f"{formats}.benchmarks:LabelledPairs")
    register("comparisons", layouts.ComparisonsConfig, f"{formats}.comparisons:Comparisons")
    register("ranked_responses", layouts.RankedResponsesConfig, f"{formats}.ratings:RankedResponses")
    register("labels", layouts.LabelsConfig, f"{formats}.labels:Labels")
    register("rated_responses", layouts.RatedResponsesConfig, f"{formats}.ratings:RatedResponses")
    register("demonstrations", layouts.DemonstrationsConfig, f"{formats}.demonstrations:Demonstrations")
    register("conversations", layouts.ConversationsConfig, f"{formats}.demonstrations:Conversations")
    register("dialogue_texts", layouts.DialogueTextsConfig, f"{formats}.demonstrations:DialogueTexts")
    register("prompts", layouts.PromptsConfig, f"{formats}.demonstrations:Prompts")
    register("prompt_lines", layouts.PromptLinesConfig, f"{formats}.demonstrations:Lines")
