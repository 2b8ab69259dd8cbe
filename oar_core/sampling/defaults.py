"""Defaults of a model for a request that sets nothing."""

from dataclasses import fields
from typing import Any

from oar_core.models.model import Model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.sampler import SamplingParams
from oar_wire.options import FITTED, fitted_sizes, plan_options, take


def default_plan(model: Model, **changes: Any) -> PlanSpec:
    """The model's plan with `changes`, of which null is left out. Unless they name group sizes, these are the model's
    own where it has some for the order and the steps."""
    names = plan_options()
    usual = take(model.defaults, names)
    values = {**usual, **take(changes, names)}
    if changes.get("group_sizes") in {None, FITTED}:
        own = fitted_sizes(model.group_tables, values.get("order", ""), values.get("steps"))
        values["group_sizes"] = own or usual.get("group_sizes", PlanSpec.group_sizes)
    elif isinstance(values["group_sizes"], tuple) and changes.get("steps") is None:
        values.pop("steps", None)  # the list says their number
    return PlanSpec.of(values)


def default_sampling(model: Model) -> SamplingParams:
    return SamplingParams(**take(model.defaults, [item.name for item in fields(SamplingParams)]))
