"""AsyncAPI 3.0, as far as it is used here, written down as schemas. An unknown field is a mistake."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]+$")]


class Strict(BaseModel):
    """Names that begin with `x-` are free."""

    model_config = ConfigDict(extra="allow", alias_generator=to_camel)

    @model_validator(mode="after")
    def _no_other_fields(self) -> "Strict":
        unknown = [name for name in self.model_extra or {} if not name.startswith("x-")]
        if unknown:
            raise ValueError(f"unknown fields {unknown}")
        return self


class Reference(BaseModel):
    model_config = ConfigDict(extra="forbid")
    ref: Annotated[str, Field(alias="$ref", pattern=r"^#/")]


class License(Strict):
    name: str
    url: str


class Info(Strict):
    title: str
    version: str
    description: str
    license: License


class Server(Strict):
    host: str
    protocol: Literal["ws", "http"]


class Parameter(Strict):
    description: str
    examples: list[str]


class Query(BaseModel):
    type: Literal["object"]
    properties: dict[str, dict[str, Any]]


class WebsocketBinding(Strict):
    method: Literal["GET", "POST"]
    query: Query
    headers: Query
    binding_version: Literal["0.1.0"]


class HttpBinding(Strict):
    method: Literal["GET"]
    query: Query
    binding_version: Literal["0.3.0"]


class Channel(Strict):
    address: str
    title: str
    description: str
    servers: list[Reference]
    parameters: dict[Key, Parameter]
    messages: dict[Key, Reference]
    bindings: dict[Literal["ws"], WebsocketBinding] = {}


class Operation(Strict):
    action: Literal["send", "receive"]
    channel: Reference
    summary: str
    messages: list[Reference]
    bindings: dict[Literal["http"], HttpBinding] = {}


class Example(Strict):
    name: str
    payload: dict[str, Any]


class Message(Strict):
    name: str
    title: str
    summary: str
    content_type: Literal["application/json"]
    payload: Reference
    examples: list[Example]


class SecurityScheme(Strict):
    type: Literal["http"]
    scheme: Literal["bearer"]
    description: str


class Components(Strict):
    security_schemes: dict[Key, SecurityScheme]
    messages: dict[Key, Message]
    schemas: dict[Key, dict[str, Any]]


class Document(Strict):
    asyncapi: Literal["3.0.0"]
    info: Info
    default_content_type: str
    servers: dict[Key, Server]
    channels: dict[Key, Channel]
    operations: dict[Key, Operation]
    components: Components
