"""Jobs that another version queued are read by this one, and the other way round."""

import json
from typing import Any, get_args

import pytest

from oar_wire.job import GenerationParams
from oar_wire.outputs import OutputKind

# As written before options were declared in one place; kept as it was.
STORED = (
    '{"model":"sprites-64","prompt":"an orc, walking","seed":7,"n":2,"order":[1,0,2,3],"steps":4,'
    '"group_sizes":"adaptive","guidance":1.5,"temperature":0.9,"top_k":12,"top_p":0.95,"entropy_bound":4.0,'
    '"candidates":3,"guidance_interval":[0.25,0.75],"guidance_schedule":"linear","previews":true,'
    '"priority":"normal","deadline":30.0,"partial_images":2,"edit":{"mode":"vary","offset":[0,0],"strength":0.5,'
    '"feather":0,"num_kept":30},"model_hash":"0123456789abcdef"}'
)
# Jobs are older than these fields.
YOUNGER = ("entropy_bound", "candidates", "guidance_interval", "guidance_schedule", "partial_images", "edit", "frames")


def test_a_stored_job_is_read_and_every_value_of_it_is_kept() -> None:
    stored: dict[str, Any] = json.loads(STORED)
    params = GenerationParams.model_validate_json(STORED)
    written = json.loads(params.model_dump_json())
    assert {name: written[name] for name in stored} == stored
    assert (params.order, params.guidance_interval) == ((1, 0, 2, 3), (0.25, 0.75))


def test_a_job_that_is_older_than_some_fields_has_their_first_meaning() -> None:
    stored = {name: value for name, value in json.loads(STORED).items() if name not in YOUNGER}
    params = GenerationParams.model_validate_json(json.dumps(stored))
    assert (params.entropy_bound, params.candidates, params.guidance_schedule) == (6.0, 4, "constant")
    assert (params.guidance_interval, params.partial_images, params.edit) == ((0.0, 1.0), 0, None)
    assert [params.num_outputs(kind) for kind in get_args(OutputKind)] == [2, 0, 0]


@pytest.mark.parametrize(
    ("name", "value"), [("guidance_schedule", "square"), ("temperature", 200.0), ("sharpness", 3), ("top_k", 1 << 40)]
)
def test_what_a_later_version_allows_is_read_and_left_to_the_library_to_refuse(name: str, value: object) -> None:
    params = GenerationParams.model_validate_json(json.dumps({**json.loads(STORED), name: value}))
    assert getattr(params, name, value) == value
