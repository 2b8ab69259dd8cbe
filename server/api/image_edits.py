"""Bodies of `/v1/images/edits` and `/v1/images/variations`: a multipart form with files, or JSON with references."""

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from oar_wire.errors import InvalidField, InvalidRequest, MissingField, UnknownField
from oar_wire.openai import ImageEditBody, ImageEditFields, ImageReference, Picture, VariationFields
from server.api.deps import Services
from server.api.forms import check, is_multipart, read_form, read_json
from server.api.uploads import Upload, from_base64

DATA = "data:"


@dataclass(frozen=True)
class ReadEdit:
    requested: ImageEditFields
    image: Upload
    mask: Upload | None = None


async def read_edit(request: Request, services: Services) -> ReadEdit:
    """Raises a ServerError or a RequestValidationError."""
    if is_multipart(request):
        form = await read_form(request, ImageEditFields, services.settings.max_body_bytes)
        return ReadEdit(check(ImageEditFields, form.fields), form.image, form.mask)
    return await services.threads.decoding.run(services.tenant, _decode, await read_json(request))


def _decode(fields: dict[str, Any]) -> ReadEdit:
    """Raises InvalidRequest, RequestValidationError. Takes CPU time: to be run in a thread."""
    body = check(ImageEditBody, fields)
    requested = ImageEditFields(**body.model_dump(exclude={"images", "image", "mask"}, exclude_unset=True))
    mask = None if body.mask is None else _referred(body.mask, "mask")
    return ReadEdit(requested, _image(body), mask)


async def read_variation(request: Request, services: Services) -> ReadEdit:
    """Raises a ServerError or a RequestValidationError."""
    form = await read_form(request, VariationFields, services.settings.max_body_bytes)
    if form.masks:
        raise UnknownField("a variation has no mask; an edit has", field="mask")
    return ReadEdit(check(VariationFields, form.fields), form.image)


def _image(body: ImageEditBody) -> Upload:
    """Raises InvalidRequest unless there is exactly one."""
    images = [*(body.images or ()), *(() if body.image is None else (body.image,))]
    if not images:
        raise MissingField("images is required, with one picture", field="images")
    if len(images) > 1:
        message = f"{len(images)} images were sent; this server edits one at a time"
        raise InvalidField(message, field="images", of="image")
    return _referred(images[0], "image")


def _referred(picture: Picture, field: str) -> Upload:
    """Raises InvalidRequest."""
    if isinstance(picture, str):
        return from_base64(picture, field)
    if picture.image_url is None or picture.file_id is not None:
        raise _unreadable(picture, field)
    if picture.image_url[: len(DATA)].lower() != DATA:
        message = f"{field}: this server fetches nothing from elsewhere; send the picture itself as a data: URL"
        raise InvalidField(message, field=field)
    return from_base64(picture.image_url, field)


def _unreadable(picture: ImageReference, field: str) -> InvalidRequest:
    why = "image_url is missing" if picture.file_id is None else "no files are kept here, so that no file_id is known"
    return InvalidField(f"{field}: {why}; send the picture as a data: URL", field=field)
