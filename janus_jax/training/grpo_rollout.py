"""A step of GRPO as the host sees it: draw and answer with the step's weights, score what came of it,
then update them by the compiled step."""

import functools

import numpy as np

from janus_jax.distributed import arrays, processes
from janus_jax.model.guest import own_jax
from janus_jax.model.low_rank_layers import whole
from janus_jax.training import grpo_batch, grpo_processes, grpo_report, rewards
from janus_jax.training.grpo_batch import Group
from janus_jax.training.grpo_loss import spread
from janus_jax.training.grpo_options import KINDS, Counts
from janus_jax.training.grpo_prompts import Prompts
from janus_jax.training.grpo_reference import ReferenceWeights
from janus_jax.training.stage_plan import StagePlan


class Rollouts:
    """Of one stage; called as (state, number of the batch) -> (state, metrics).

    Args:
        plan: the stage.
        data: (mixture, ReadStats) of its prompts.
        processor: the tokenizer and template.
        workdir: where the sheets go.
        say: hears a line a step, and what is wrong.
        step: (state, batch) -> (state, metrics), compiled, its state donated.
        score: (state, batch) -> log-probabilities float32 [B, T], compiled.
        sampler: the module sample/rollouts.py, of a room that this one may not import.
        initial: weights directories, or None for those of the stage's `init` -> (state as the stage
            would begin with them, child -> where it is from).
    """

    def __init__(
        self, plan: StagePlan, data, processor, workdir, say, step, score, sampler, initial
    ):  # fmt: skip
        self.plan = plan
        self.options = plan.options
        self.counts = Counts.of(plan.stage, self.options)
        self.processor = processor
        self.workdir = workdir
        self.say = say
        self.step = step
        self.score = score
        self.sampler = sampler
        self.guided = self.options["cfg_scale"] != 1
        self.prompts = Prompts(data[0], self.prepared, data[1])
        self.reference = ReferenceWeights(plan, initial) if self.options["kl"] else None
        how = {"ask": self.ask, "timeout": self.options["timeout"]}
        how |= {"retries": self.options["retries"], "say": say}
        self.scorers = {
            kind: rewards.Scorer(what, rewards.opened(what, self.options[field], **how), say)
            for kind, (what, field) in KINDS.items()
            if getattr(plan.stage.ratio, kind)
        }
        self.collapse = grpo_report.Collapse(plan.name, self.options["entropy_floor"], say)

    def __call__(self, state, number: int):
        clock = grpo_report.Clock()
        self.judge = model = self._decoding(state)
        if self.reference is not None and self._asks:
            self.judge = self._decoding(self.reference.held(state))
        groups = self.rollout(model, number, clock)
        if (every := int(self.options["sheet_every"])) and number % every == 0:
            processes.all_or_none(lambda: processes.is_lead() and self._sheet(model, number))
            clock.lap("sheet")
        self.judge = model = None  # the step takes the memory of the weights
        rows = self.batch(groups)
        told, counted = rows.pop("told"), rows["shares"] > 0
        batch = grpo_processes.put_rows(rows)
        old = self.score(state, batch)
        reference = old
        if self.reference is not None:
            reference = self.score(self.reference.held(state), batch)
        batch |= {"old": old, "reference": reference}
        clock.lap("scoring", old)
        (scored,) = arrays.pieces(old, stacked=False)
        apart = np.abs(scored - told)[counted]
        state, metrics = self.step(state, batch)
        clock.lap("update", metrics["loss"])
        metrics = grpo_report.metrics(metrics, groups, apart, clock)
        metrics["groups_failed"] = float(self.failed)
        self.collapse.watch(number + 1, groups, metrics)
        for kind, scorer in self.scorers.items():
            own = [g for g in groups if g.draws == (kind == "generation")]
            scorer.watch(
                number + 1, {n: np.stack([g.by_name[n] for g in own]) for n in own[0].by_name}
            )
        self.say(grpo_report.line(self.plan.name, number + 1, metrics))
        return state, metrics

    def _decoding(self, state):
        """The form that decodes, on this process's devices. All call it."""
        model = grpo_processes.own_state(self.plan, state).model()
        with own_jax(model):
            return self.sampler.decoding(whole(model))

    @property
    def _asks(self) -> bool:
        return any(r.name == "self" for s in self.scorers.values() for r in s.rewards)

    def ask(self, pictures: list, questions: list[str]) -> list[str]:
        """What the reference, or without one the policy itself, answers."""
        return self.sampler.ask(self.judge, self.processor, pictures, questions)

    def prepared(self, kind: str, asked):
        """What the sampler takes of a prompt. Raises ValueError for one that fits no row."""
        rows = self.plan.stage.rows
        model = self.plan.model
        if kind == "generation":
            ids = self.processor.request(asked.words)
            room = grpo_batch.longest(rows, model.generation_encoder.tokens, self.guided)
            found, n = ids, len(ids)
        else:
            found = self.sampler.question(self.processor, model, asked.picture, asked.words)
            room, n = rows.length - int(self.options["max_new_tokens"]), len(found[0])
        if n > room:
            raise ValueError(
                f"{asked.words[:60]!r} has {n} tokens with its template, a row has room for {room}; "
                f"raise stages.{self.plan.name}.rows.length"
            )
        return found

    def rollout(self, model, number: int, clock) -> list[Group]:
        """The scored groups of a step, drawings first. Those whose reward failed are counted, those
        among them too that others have replaced."""
        found = []
        self.failed = 0
        if self.options["rollout_weights"] == "whole":
            with own_jax(model):
                model = self.sampler.on_each(model)
        counts = {"generation": self.counts.drawings, "understanding": self.counts.answers}
        for kind in self.scorers:
            wanted = counts[kind] // self.counts.group
            kept, spare = [], []
            for round_ in range(1 + int(self.options["resample"])):
                if not (missing := wanted - len(kept)):
                    break
                draw = functools.partial(self.prompts.draw, kind, number, round_, missing)
                drawn = processes.all_or_none(draw)
                fill = functools.partial(self.filled, model, kind, clock=clock)
                some = grpo_processes.shared(grouped(kind, drawn), fill)
                self.failed += sum(group.failed for group in some)
                for group in some:
                    useful = not group.failed and spread(group.rewards[None])[0]
                    (kept if useful else spare).append(group)
            # What has failed comes last, and first what is whole though its rewards are equal.
            spare.sort(key=lambda group: group.failed)
            found += kept + spare[: wanted - len(kept)]
        return found

    def filled(self, model, kind: str, groups: list[Group], clock) -> list:
        """Enters outputs and rewards of the groups; gives what rewards have seen."""
        with own_jax(model):
            self.made(model, kind, groups, self.counts.group)
            clock.lap("rollout")
            shown = self.scored(model, kind, groups)
            clock.lap("reward")
        return shown

    def made(self, model, kind: str, groups: list[Group], count: int):
        """Enters `count` outputs of each prompt, not scored yet."""
        seeds = [group.seed for group in groups]
        heat = float(self.options["temperature"])
        rows = int(self.options["rollout_rows"])
        if kind == "generation":
            how = {"cfg_scale": float(self.options["cfg_scale"]), "temperature": heat, "rows": rows}
            blank = self.processor.unconditional
            prompts = [group.ids for group in groups]
            outputs = self.sampler.drawings(model, prompts, seeds, count, blank, **how)
        else:
            most = int(self.options["max_new_tokens"])
            how = {"temperature": heat, "most": most, "rows": rows}
            asked = [(group.ids, group.slots, group.picture) for group in groups]
            outputs = self.sampler.answers(model, self.processor, asked, seeds, count, **how)
        for i, group in enumerate(groups):
            group.outputs = outputs[i * count : (i + 1) * count]

    def shown(self, model, groups: list[Group]) -> list:
        """What rewards see of all outputs: PIL pictures, or texts."""
        outputs = [ids for group in groups for ids, _ in group.outputs]
        if groups[0].draws:
            return self.sampler.painted(model, np.stack(outputs))
        return [self.sampler.text_of(self.processor, ids) for ids in outputs]

    def scored(self, model, kind: str, groups: list[Group]) -> list:
        """Enters the rewards of the groups' outputs; gives what rewards have seen."""
        shown = self.shown(model, groups)
        asked = [group.asked for group in groups for _ in group.outputs]
        for name, values in self.scorers[kind](asked, shown).items():
            for group, own in zip(groups, np.split(values, len(groups))):
                if name:
                    group.by_name[name] = own
                else:
                    group.rewards = own
        return shown

    def batch(self, groups: list[Group]) -> dict:
        """The step's batch in numpy, see `grpo_batch.assembled`."""
        blank = self.processor.unconditional if self.guided else None
        most = int(self.options["max_new_tokens"])
        how = self.plan.stage.rows, self.plan.model, most, blank, self.options
        return grpo_batch.assembled(groups, *how)

    def _sheet(self, model, number: int):
        if "generation" not in self.scorers:
            return
        drawn = self.prompts.draw("generation", 0, 10**6, grpo_report.SHEET)
        groups = grouped("generation", drawn)
        pictures = self.filled(model, "generation", groups, grpo_report.Clock())
        grpo_report.sheet(self.workdir, self.plan.name, number, groups, pictures, self.say)


def grouped(kind: str, drawn: list[tuple]) -> list[Group]:
    """Groups without outputs, of what `Prompts.draw` gives."""
    if kind == "generation":
        return [Group(asked, True, ids, [], seed=seed) for asked, ids, seed in drawn]
    return [
        Group(asked, False, ids, [], slots, picture, seed=seed)
        for asked, (ids, slots, picture), seed in drawn
    ]
