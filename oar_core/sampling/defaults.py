"""What a request that says nothing gets from a model."""

from dataclasses import fields

from oar_core.models.model import Model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.sampler import SamplingParams
from oar_wire.options import take


def default_plan(model: Model) -> PlanSpec:
    return PlanSpec(**take(model.defaults, [item.name for item in fields(PlanSpec)]))


def default_sampling(model: Model) -> SamplingParams:
    return SamplingParams(**take(model.defaults, [item.name for item in fields(SamplingParams)]))
