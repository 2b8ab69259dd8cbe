"""`POST /v1/edits`: a generation that starts from a picture."""

from typing import Any

from fastapi import APIRouter, Request, Response

from oar_wire.edit import EditFields, EditRequest
from oar_wire.errors import InvalidField
from oar_wire.job import GenerationStatus
from server.api import documents
from server.api.deps import Services, Shared
from server.api.forms import check, is_multipart, read_form, read_json
from server.api.generations import ENDED, CancelAfter, Key, Prefer, answer
from server.api.submit import accept, idempotency, rejections_counted, with_deadline
from server.api.uploads import Upload, from_base64, prepare

router = APIRouter(prefix="/v1/edits", tags=["edits"])


@router.post(
    "",
    name="submit",
    summary="Submit an edit",
    status_code=202,
    response_model=GenerationStatus,
    responses={
        **ENDED,
        **documents.errors(
            *documents.SUBMIT,
            *documents.PICTURES,
            InvalidField("the image is no PNG, WebP or JPEG", field="image"),
            InvalidField("the mask has no pixel of alpha 0", field="mask"),
            InvalidField("the image does not lie on the 64x64 canvas", field="offset"),
        ),
    },
    openapi_extra={"requestBody": documents.form_body(EditFields, EditRequest)},
)
async def submit_edit(
    request: Request,
    response: Response,
    services: Shared,
    prefer: Prefer = None,
    idempotency_key: Key = None,
    cancel_after: CancelAfter = None,
) -> GenerationStatus:
    """Paints parts of a picture anew; pixels outside of them stay exactly as they are. Then all is as with
    `/v1/generations`, under the same addresses.

    Which parts: the pixels of alpha 0 of the `mask`, or those of the image itself that are not opaque. With
    `strength`, a share of what is there is kept. With `offset`, an image of any size is laid on the canvas, and
    everything around it is painted.
    """
    with rejections_counted(services):
        fields, image, mask = await _read(request, services)
        key = idempotency(idempotency_key, fields, image.data, mask.data if mask else b"")
        fields = with_deadline(fields, cancel_after)
        model = await services.find_model(fields.model)
        source = await services.threads.decoding.run(
            services.tenant, prepare, image, mask, fields, model, services.settings
        )
        submitted = await accept(services, fields, model, idempotency=key, source=source)
    return await answer(services, submitted, response, prefer)


async def _read(request: Request, services: Services) -> tuple[EditFields, Upload, Upload | None]:
    if is_multipart(request):
        form = await read_form(request, EditFields, services.settings.max_body_bytes)
        return check(EditFields, form.fields), form.image, form.mask
    return await services.threads.decoding.run(services.tenant, _decode, await read_json(request))


def _decode(body: dict[str, Any]) -> tuple[EditFields, Upload, Upload | None]:
    """Raises RequestValidationError, InvalidRequest. Takes CPU time: to be run in a thread."""
    edit = check(EditRequest, body)
    mask = None if edit.mask is None else from_base64(edit.mask, "mask")
    fields = EditFields(**edit.model_dump(exclude={"image", "mask"}, exclude_unset=True, by_alias=True))
    return fields, from_base64(edit.image, "image"), mask
