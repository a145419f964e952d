"""The formats that come along, by the names under which `data.format` chooses them. None of them has options of its own: `data.columns`,
`data.rating` and the like are theirs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class MessageTreesConfig:
    """Trees of messages with replies and ranks, whole or one message a row (OpenAssistant)."""


@dataclass
class RewardBench2Config:
    """Lists of right and wrong responses, with the number of right ones (RewardBench 2)."""


@dataclass
class RMBenchConfig:
    """Right and wrong responses in three styles each (RM-Bench)."""


@dataclass
class DialoguesConfig:
    """Two whole dialogues with Human: and Assistant: that differ in the last reply (HH-RLHF)."""


@dataclass
class PairsConfig:
    """Chosen and rejected, as texts, messages or lists of several."""


@dataclass
class LabelledPairsConfig:
    """Two responses and a label that says which is right (JudgeBench, LLMBar)."""


@dataclass
class ComparisonsConfig:
    """Two responses or conversations and who won, as arenas write them."""


@dataclass
class RankedResponsesConfig:
    """K responses to a prompt with scores, ranks or verdicts, in one row (UltraFeedback)."""


@dataclass
class LabelsConfig:
    """One response that was called good or bad."""


@dataclass
class RatedResponsesConfig:
    """One response and its ratings; others to the prompt stand in other rows (HelpSteer)."""


@dataclass
class DemonstrationsConfig:
    """A prompt and the response to imitate."""


@dataclass
class ConversationsConfig:
    """Messages that end with the assistant's reply, which is imitated."""


@dataclass
class DialogueTextsConfig:
    """A text with Human: and Assistant:, whose last reply is imitated."""


@dataclass
class PromptsConfig:
    """A prompt alone, or with a reference that verifies an answer."""


@dataclass
class PromptLinesConfig:
    """Texts, each of which is a prompt."""
