"""Values that nobody can mean, option by option, written from the options' names and docstrings and not from their bounds.

What stands to the left is chosen, what stands to the right is one nonsense each: `+` joins values that only together are one.
`{rows}` is a file of preferences that can be read, `{absent}` a path where nothing is."""

from __future__ import annotations

import re
from collections.abc import Iterator

NONSENSE: dict[str, str] = {
    "": """
        seed=-1 seed=1.5 seed=nan seed=abc seed=null seed=[1]
        device='' device=gpu device=cuda:-1 device=cuda:x device=null
        results_dir='' results_dir=/dev/null/runs cache_dir=/dev/null/cache cache_dir=~nouser/x cache=perhaps resume=perhaps
        rankings.prompts=0 rankings.prompts=-5 rankings.prompts=1.5 rankings.responses=1 rankings.responses=0
        rankings.responses=-4 rankings.held_out=1 rankings.held_out=1.5 rankings.held_out=-0.1 rankings.held_out=nan
        rankings.temperature=0 rankings.temperature=-1 rankings.temperature=nan rankings.temperature=1e300
        budget.samples=-1 budget.samples=inf budget.tokens=-1 budget.seconds=-1 budget.seconds=nan budget.seconds=inf
        tune.metric=gold tune.metric=/ tune.metric=helpfulness/
        stages=[nope] stages=[''] stages=null stages=filter_demonstrations stages=[held_out_accuracy,held_out_accuracy]
        stage_options=null stage_options=3
        """,
    "eval=standard": """
        eval.families=[nope] eval.families=[] eval.families=[''] eval.families=[diversity,diversity] eval.families=null
        eval.questions=-1 eval.samples=0 eval.samples=-1 eval.samples=2.5
        eval.temperature=0 eval.temperature=-1 eval.temperature=nan eval.temperature=1e300 eval.every=-1
        eval.every=10+eval.points.questions=-1 eval.every=10+eval.points.samples=0
        eval.every=10+eval.samples=2+eval.points.samples=3 eval.every=10+eval.points.families=[nope]
        eval.every=10+eval.families=[helpfulness]+eval.points.families=[diversity]
        eval.frontier_samples=-1 eval.frontier_prompts=-1 eval.frontier_prompts=1.5
        eval.path={absent} eval.include_path={absent}+eval.tasks=[x] eval.tasks=[''] eval.primary=[''] eval.primary=[gold] eval.primary=[nope/x|]
        eval.options.nope.x=1 eval.options.diversity=null eval.options.diversity.nope=1
        eval.options.helpfulness.limit=-1 eval.options.helpfulness.further=[nope] eval.options.helpfulness.path={absent}
        eval.options.sycophancy.limit=-1 eval.options.sycophancy.wordings=0 eval.options.sycophancy.wordings=-1
        eval.options.sycophancy.further=[nope] eval.options.sycophancy.further=[''] eval.options.sycophancy.path={absent}
        eval.options.diversity.limit=-1 eval.options.diversity.metrics=[nope] eval.options.diversity.metrics=[]
        eval.options.diversity.self_bleu_prompts=-1 eval.options.diversity.bundle=0 eval.options.diversity.bundle=-1
        eval.options.diversity.embeddings=perhaps eval.options.diversity.embedding_prompts=-1
        eval.options.diversity.embeddings=on+eval.options.diversity.embedding_model=''
        eval.options.diversity.novelty_cosine=1.5 eval.options.diversity.novelty_cosine=-0.5 eval.options.diversity.novelty_cosine=nan
        """,
    "eval.families=[capability,refusals,preferences,tasks]": """
        eval.options.capability.limit=-1 eval.options.refusals.limit=-1 eval.options.preferences.limit=-1
        eval.options.tasks.limit=-1 eval.options.tasks.names=[''] eval.options.tasks.path={absent}
        eval.options.tasks.include_path={absent} eval.options.capability.path={absent}
        """,
    "stages=[filter_demonstrations]": """
        stage_options.filter_demonstrations=null stage_options.filter_demonstrations=3 stage_options.filter_demonstrations.nope=1
        stage_options.filter_demonstrations.min_words=-1 stage_options.filter_demonstrations.max_words=1.5
        stage_options.filter_demonstrations.max_words=1+stage_options.filter_demonstrations.min_words=2
        stage_options.filter_demonstrations.per_prompt=-1 stage_options.filter_demonstrations.duplicates=perhaps
        stage_options.filter_demonstrations.without=[''] stage_options.filter_demonstrations.without=null
        """,
    "stages=[held_out_accuracy]": """
        stage_options.held_out_accuracy.batch_size=0 stage_options.held_out_accuracy.batch_size=nan
        """,
    "algo=ppo": """
        algo.updates=-1 algo.updates=0 algo.updates=1.5 algo.updates=nan algo.updates=true algo.updates=[1] algo.updates=null
        algo.batch_size=0 algo.batch_size=-64 algo.micro_batch_size=0 algo.micro_batch_size=-1 algo.optimizer=sgdd algo.optimizer=''
        algo.learning_rate=0 algo.learning_rate=-1e-3 algo.learning_rate=nan algo.learning_rate=inf algo.learning_rate=1e300
        algo.learning_rate=abc algo.lr_schedule=nope algo.lr_schedule='' algo.warmup_updates=-5
        algo.warmup_updates=1e300 algo.weight_decay=-1 algo.weight_decay=nan algo.weight_decay=1e300
        algo.adam_eps=-1 algo.adam_eps=nan algo.adam_eps=inf algo.adam_eps=1e300 algo.max_grad_norm=-1 algo.max_grad_norm=nan
        algo.samples_per_prompt=0 algo.samples_per_prompt=-1 algo.batch_size=64+algo.samples_per_prompt=128 algo.batch_size=64+algo.samples_per_prompt=3
        algo.temperature=0 algo.temperature=-1 algo.temperature=nan algo.temperature=1e300 algo.temperature=1e-300
        algo.kl_coef=-1 algo.kl_coef=nan algo.kl_coef=inf algo.kl_coef=1e300 algo.kl_coef=abc
        algo.kl_target=-1 algo.kl_target=nan algo.kl_target=inf algo.kl_target=6+algo.kl_coef=0
        algo.kl_horizon=0 algo.kl_horizon=-1 algo.kl_horizon=nan algo.kl_stop=-1 algo.kl_stop=nan
        algo.epochs=0 algo.epochs=-1 algo.minibatches=0 algo.minibatches=-1 algo.minibatches=3 algo.batch_size=64+algo.minibatches=128
        algo.clip_ratio=0 algo.clip_ratio=-0.2 algo.clip_ratio=nan algo.clip_value=-1 algo.clip_value=nan
        algo.value_learning_rate=-1 algo.value_learning_rate=nan algo.value_learning_rate=1e300
        algo.value_coef=-1 algo.value_coef=nan algo.value_coef=inf algo.value_init=nope
        algo.gamma=1.5 algo.gamma=-0.1 algo.gamma=nan algo.gae_lambda=1.5 algo.gae_lambda=-1 algo.gae_lambda=nan
        algo.value_warmup=-1 algo.updates=50+algo.value_warmup=50 algo.value_warmup=1e300 algo.gae_lambda_value=1.5 algo.gae_lambda_value=nan
        algo.length_adaptive_lambda=-1 algo.length_adaptive_lambda=nan algo.kl_in=nope algo.kl_estimator=k1
        algo.kl_in=loss+algo.whiten_rewards=true algo.whiten_rewards=perhaps algo.missing_eos=nope algo.missing_eos_penalty=nan algo.missing_eos_penalty=-1 algo.missing_eos_penalty=inf
        sft.passes=-1 sft.passes=nan sft.passes=inf sft.passes=1e300 sft.updates=-1 sft.passes=0+sft.updates=0 sft.learning_rate=nan
        sft.learning_rate=-1 sft.batch_size=0 sft.lr_schedule=sine sft.warmup_updates=-1 pretrain.updates=-1 pretrain.learning_rate=1e300
        pretrain.batch_size=-1 pretrain.micro_batch_size=0
        """,
    "algo=grpo": """
        algo.samples_per_prompt=1 algo.samples_per_prompt=0 algo.kl_coef=-1 algo.kl_coef=nan algo.epochs=0 algo.minibatches=0
        algo.clip_ratio=-0.1 algo.epochs=2+algo.clip_ratio=0 algo.std_eps=-1 algo.std_eps=nan algo.std_eps=1e300 algo.kl_in=nope
        algo.kl_estimator=k9 algo.kl_estimator=k1 algo.length_normalisation=nope algo.missing_eos_penalty=nan
        """,
    "algo=dapo": "algo.clip_ratio_high=0 algo.overlong_buffer=0 algo.overlong_buffer=1.5 algo.overlong_penalty=-1 algo.leave_out_flat=perhaps",
    "algo=gdpo": "algo.scale_by_batch=perhaps algo.std_eps=0 algo.missing_eos=nope algo.missing_eos_penalty=-1 algo.kl_estimator=k1",
    "algo=gspo": "algo.clip_ratio_high=nan algo.kl_estimator=k1",
    "algo=cispo": "algo.ratio_limit=0 algo.ratio_limit=nan",
    "algo=sapo": "algo.gate_positive=0 algo.gate_negative=-1 algo.gate_negative=inf",
    "algo=reinforce_pp": "algo.samples_per_prompt=0 algo.clip_ratio=0",
    "algo=reinforce_pp_baseline": "algo.samples_per_prompt=1 algo.kl_in=nope",
    "algo=maxrl": "algo.success_above=nan algo.success_above=1e300 algo.samples_per_prompt=1",
    "algo=rloo": "algo.samples_per_prompt=1 algo.kl_coef=-0.1 algo.updates=0 algo.minibatches=5 algo.temperature=nan",
    "algo=best_of_n": "algo.n=1 algo.n=0 algo.n=-8 algo.n=2.5 algo.n=1e12 algo.n=1000000000000",
    "algo=rejection_sampling": "algo.samples_from=nobody algo.samples_per_prompt=1 algo.batch_size=4 algo.batch_size=100",
    "algo=online_dpo": """
        algo.samples_per_prompt=1 algo.samples_per_prompt=0 algo.batch_size=63 algo.labels=firm algo.loss=nope algo.beta=0
        algo.beta=-0.1 algo.beta=nan algo.label_smoothing=0.5 algo.label_smoothing=-0.1 algo.missing_eos=no algo.missing_eos_penalty=nan
        algo.labels=soft+algo.loss=hinge
        """,
    "algo=dpo": """
        algo.beta=0 algo.beta=-0.1 algo.beta=nan algo.beta=inf algo.beta=1e300 algo.loss=nope algo.loss='' algo.label_smoothing=0.5
        algo.label_smoothing=1 algo.label_smoothing=-0.1 algo.label_smoothing=nan algo.loss=hinge+algo.soft_labels=true
        algo.pairs=some algo.updates=0+algo.passes=0 algo.passes=-1 algo.passes=nan algo.passes=inf algo.passes=1e300 algo.batch_size=0 algo.soft_labels=perhaps
        algo.loss=hinge+algo.label_smoothing=0.1 algo.loss=ipo+algo.label_smoothing=0.1
        """,
    "algo=ipo": "algo.tau=0 algo.tau=-0.1 algo.tau=nan algo.tau=inf",
    "algo=orpo": "algo.orpo_lambda=-0.1 algo.orpo_lambda=nan algo.orpo_lambda=inf algo.orpo_lambda=1e300",
    "algo=simpo": "algo.beta=0 algo.beta=-2 algo.beta=nan algo.gamma=nan algo.gamma=inf algo.gamma=1e300",
    "algo=kto": """
        algo.batch_size=1 algo.beta=0 algo.beta=-0.1 algo.beta=nan algo.desirable_weight=-1 algo.desirable_weight=nan
        algo.undesirable_weight=-1 algo.undesirable_weight=inf algo.desirable_weight=0+algo.undesirable_weight=0
        """,
    "algo=sft": "algo.updates=0+algo.passes=0 algo.passes=-1 algo.updates=-1 algo.learning_rate=0 algo.batch_size=0 algo.max_grad_norm=nan",
    "model=tiny": """
        model.hidden_size=0 model.hidden_size=-64 model.hidden_size=63 model.hidden_size=1000000000000 model.num_layers=0
        model.num_layers=-1 model.num_layers=1000000000000 model.num_heads=0 model.num_heads=3 model.num_heads=-4
        model.intermediate_size=0 model.intermediate_size=-1 model.initializer_range=0 model.initializer_range=-1
        model.initializer_range=nan model.initializer_range=1e300 model.max_prompt_tokens=0 model.max_prompt_tokens=-1
        model.max_response_tokens=0 model.max_response_tokens=-24 model.generation_batch_size=0 model.generation_batch_size=-1
        model.generation_batch_size=1e24 model.scoring_batch_size=0 model.sampler=vllmm model.scalar_head=nope model.value_trunk=nope
        model.suppress_tokens=[''] model.suppress_tokens=3
        """,
    "model=hf": """
        model.path='' model.path={absent} model.path=./nowhere model.gguf_file=../x.gguf model.gguf_file=weights.bin
        model.chat_template={absent}.jinja model.template_date=tomorrow model.template_date=2026-02-30 model.template_date=''
        model.template_kwargs=3 model.strip_thinking=perhaps model.dtype=float8 model.dtype='' model.quantization=nf5
        model.attention=nope model.lora_rank=0 model.lora_rank=-1 model.lora_rank=1000000000 model.lora_rank=null model.lora_alpha=0
        model.lora_alpha=nan model.lora_alpha=-32 model.lora_alpha=1e300 model.lora_targets='' model.lora_targets=',,' model.max_prompt_tokens=0
        model.max_response_tokens=0 model.gradient_checkpointing=perhaps model.wheel='../x'
        """,
    "data=world": """
        data.evaluation_questions=0 data.evaluation_questions=-1 data.evaluation_questions=1000000000 data.train_prompts=0
        data.train_prompts=-1 data.demonstrations=0 data.demonstrations=-1 data.no_opinion=1.5 data.no_opinion=-0.1 data.no_opinion=nan
        data.right_opinion=2 data.right_opinion=-1 data.no_opinion=0.8+data.right_opinion=0.5 data.demonstrator_errs=1.5
        data.demonstrator_errs=nan data.demonstrator_agrees=-0.1 data.demonstrator_follows_style=75 data.world_seed=-1 data.world_seed=0.5
        """,
    "annotator=honest": """
        annotator.temperature=0 annotator.temperature=-1 annotator.temperature=nan annotator.temperature=inf annotator.temperature=1e300
        annotator.b_correct=nan annotator.b_style=inf annotator.b_agree=nan annotator.b_courtesy=1e300 annotator.b_length=nan
        annotator.b_unfinished=-inf
        """,
    "data=exact annotator=exact": """
        data.length=1 data.length=4 data.length=0 data.beta=0 data.beta=-1 data.beta=nan data.beta=inf data.letters=1 data.letters=13
        data.letters=0 data.contexts=0 data.contexts=-4 data.uncovered=1 data.uncovered=1.5 data.uncovered=-0.1 data.uncovered=nan
        data.train_prompts=0 data.demonstrations=-1 data.recorded_rankings=-1 data.world_seed=-1
        """,
    "data=arithmetic reward=verify reward.checks.number=1 annotator=reference": """
        data.evaluation_prompts=0 data.evaluation_prompts=-1 data.evaluation_prompts=1000000000 data.train_prompts=0 data.demonstrations=-1
        data.demonstrator_errs=1.5 data.demonstrator_errs=-0.1 data.demonstrator_errs=nan data.world_seed=-1
        """,
    "data=hh": """
        data.subset=nope data.subset='' data.path={absent} data.max_rows=-1 data.held_out_rows=-1 data.max_prompt_words=-1
        data.max_response_words=-1 data.split_seed=-1 data.max_rows=1.5
        """,
    "data=preferences": "data.path='' data.path={absent} data.path=./nowhere.jsonl data.path=owner/a/b/c",
    "data=preferences data.path={rows} annotator=recorded": """
        data.test_path={absent} data.demonstrations_path={absent} data.prompts_path={absent} data.held_out_share=1 data.held_out_share=1.5
        data.held_out_share=-0.1 data.held_out_share=nan data.held_out_rows=-1 data.max_rows=-1 data.split_seed=-1 data.max_bad_share=1.5
        data.max_bad_share=-0.1 data.max_bad_share=nan data.streaming=true data.columns.nope=x data.columns.prompt=''
        data.rating_weights.helpfulness=nan data.rating_weights.helpfulness=abc data.winner_values.1=left data.where=3
        data.train_split=test+data.test_split=test data.format=nope data.format=null data.format_options.x=1
        data.format=pairs+data.format_options.x=1
        annotator.path={absent} annotator.max_bad_share=2 annotator.max_bad_share=-1
        """,
    "reward=learned": """
        reward.passes=0 reward.passes=-1 reward.passes=nan reward.updates=-1 reward.batch_size=0 reward.micro_batch_size=0
        reward.learning_rate=nan reward.learning_rate=-1 reward.loss=nope reward.normalise=perhaps reward.adam_eps=-1
        reward.margin=-1 reward.margin=nan reward.margin=1+reward.loss=plackett_luce reward.members=0 reward.members=1.5
        reward.ensemble=nope reward.uncertainty=-1 reward.uncertainty=inf
        """,
    "reward=length": "reward.scale=nan reward.scale=inf reward.scale=1e300 reward.scale=0 reward.scale=abc",
    "reward=function": "reward.target='' reward.target=nocolon reward.target=:f reward.target=math: reward.target=no_such_module_x:f",
    "reward=function reward.target=math:sqrt": "reward.prompt=nope reward.batch=perhaps reward.prompt=''",
    "reward=hf": "reward.model='' reward.model={absent} reward.model=./nowhere reward.model=../nowhere",
    "reward=hf reward.model=owner/name": """
        reward.label=-1 reward.label=0.5 reward.format=nope reward.max_length=0 reward.max_length=-1 reward.batch_size=0 reward.dtype=int4
        reward.device=gpu reward.device=cuda:-1 reward.template='{%'
        """,
    "reward=judge reward.model=m": """
        reward.model='' reward.url='' reward.url=ftp://x/v1 reward.url=nowhere reward.url='http://' reward.key_variable='A B' reward.comparison=nope
        reward.rubric='' reward.rubric={absent}.md reward.max_tokens=0 reward.max_tokens=-1 reward.timeout=0 reward.timeout=-1
        reward.timeout=nan reward.retries=-1 reward.reasks=-1 reward.backoff=-1 reward.backoff=nan reward.max_backoff=-1
        reward.concurrency=0 reward.concurrency=-4 reward.cache_dir=/dev/null/x reward.price_in=-1 reward.price_in=nan
        reward.price_out=-1 reward.price_out=inf reward.extra=3 reward.rubrics=3 reward.rubrics={a:''} reward.rubrics={a:{absent}.md}
        reward.weights={a:1} reward.rubrics={a:x}+reward.weights={a:0} reward.rubrics={a:x}+reward.weights={b:1}
        """,
    "reward=mix": "reward.parts={} reward.parts.length=0 reward.clip=-1",
    "reward=mix reward.parts.length=1": """
        reward.parts=null reward.parts.length=nan reward.parts.length=0 reward.parts.length=abc reward.parts.nope=1
        reward.parts.mix=1 reward.baseline=0 reward.baseline=1 reward.baseline=-1 reward.clip=-1 reward.clip=nan
        reward.options.length.scale=nan reward.options.length.nope=1 reward.options.nope.x=1
        """,
    "data=arithmetic reward=verify annotator=reference": """
        reward.checks.nope=1 reward.checks.number=nan reward.checks.number=inf reward.checks.number=0 reward.cpu_seconds=0
        reward.cpu_seconds=-1 reward.cpu_seconds=nan reward.memory=0 reward.memory=-1 reward.workers=0 reward.workers=-2
        reward.checks.regex=1+reward.pattern='[' reward.checks.json_schema=1+reward.schema='{'
        reward.checks.json_schema=1+reward.schema={absent}.json annotator.checks=[nope] annotator.checks=[] annotator.memory=-1
        """,
    "tracker=wandb": "tracker.project=''",
    "tracker=trackio": "tracker.project=''",
    "tracker=mlflow": "tracker.experiment=''",
}  # fmt: skip


_APART = re.compile(r"(?:'[^']*'|\S)+")
"""What white space sets apart, unless it is quoted."""


def cases(rows: str, absent: str) -> Iterator[tuple[str, ...]]:
    """The overrides of each case, the nonsense last."""
    for chosen, values in NONSENSE.items():
        for value in _APART.findall(values):
            parts = (*chosen.split(), *value.split("+"))
            yield tuple(part.replace("{rows}", rows).replace("{absent}", absent) for part in parts)
