"""Every Redis key, made here alone: scripts are given them, or make them by `lua_names`.

| key | type | holds |
|---|---|---|
| `job:{id}` | hash | the fields of `Field`; kept `result_ttl` after the end |
| `tomb:{id}` | string | the final state and the tenant, kept `tombstone_ttl`: an expired job is not an unknown one |
| `ev:{id}` | stream | the job's events but previews, ids `1-0`, `2-0` ... |
| `pv:{id}` | stream | the newest preview of each image, under its number in the same count |
| `img:{id}:{i}` | string | finished PNGs |
| `out:{id}` | hash | outputs of other kinds, and their media types, as they are made |
| `val:{id}` | hash | the values of finished frames, which a video goes on from; gone with the job's end |
| `src:{id}` | string | the PNG that an edit starts from; transparent where it paints; kept as long as the job |
| `q:{model}:{priority}` | stream | job ids that wait or run, with their work; one consumer group |
| `share:{model}:{tenant}` | set | ids of the tenant's jobs that wait or run |
| `line:{model}:{tenant}` | string | until when places are promised to who was refused; no tenant: by the queue |
| `storage:{tenant}` | hash | bytes of all that is kept of the tenant's jobs, by when it expires |
| `due` | sorted set | ids of jobs that somebody has to look at, by Redis' milliseconds: deadlines, cancels |
| `sweeper` | string | the API process that looks at them, for as long as its lease lasts |
| `archive` | sorted set | ids of completed jobs that are to move to the store of results, by when to look at them |
| `callbacks` | sorted set | ids of ended jobs whose callback is to be sent, by when |
| `callback:{id}` | hash | its address, tenant, body and attempts; expires |
| `usage:{tenant}:{day}` | hash | what a tenant's jobs that ended on a day have cost; expires |
| `dead` | stream | jobs that were begun too often, with what a retry needs; bounded length |
| `idem:{tenant}:{key}` | string | fingerprint and job id of an idempotent submit |
| `rate:{tenant}` | string | when the tenant's bucket of requests is full again, in Redis' microseconds; expires then |
| `rate:{tenant}:links` | string | the same of requests that come by its signed links |
| `ctl:{worker}` | stream | ids of jobs that the worker is to cancel |
| `model:{name}` | string | what a worker published about a model (JSON); expires a while after its last worker |
| `text:{name}` | string | the model's text tokenizer (JSON of the `tokenizers` library); expires with it |
| `models`, `models:default` | set, string | names of published models; the one used when a request names none |
| `worker:{name}`, `workers` | string, sorted set | heartbeats, by Redis' milliseconds |
| `metrics:{worker}` | string | a worker's metrics in Prometheus' text format |
| `probe:writes` | string | what a process writes to learn whether Redis takes writes; expires |
| `probe:rights` | any | what the look at the user's rights writes and removes |
| `exporter` | string | the API process whose `/metrics` speaks for the queue and the workers; expires |
| `retention` | string | the API process that looks what results are to be deleted; expires |
| `link:secret` | string | a random secret that signs links of pictures, where the settings have none |
| `data:id` | string | a random id: data that was lost took it along |
| `data:lost` | string | when that was noticed, in Unix milliseconds; expires |
| `news` | stream | ids of jobs whose log has something new, for whoever waits; bounded length |
"""

from collections.abc import Callable
from enum import StrEnum

from oar_wire.tenant import OPEN_TENANT

GROUP = "workers"
RELEASED = "released"  # the consumer that holds entries which a stopping worker handed back
PRIORITIES = ("high", "normal", "low")  # as workers take them
DEFAULT_PRIORITY = "normal"
MODELS = "models"
DEFAULT_MODEL = "models:default"
WORKERS = "workers"
DUE = "due"
SWEEPER = "sweeper"
DEAD = "dead"
ARCHIVE = "archive"
CALLBACKS = "callbacks"
RETENTION = "retention"
EXPORTER = "exporter"
LINK_SECRET = "link:secret"
DATA_ID = "data:id"
DATA_LOST = "data:lost"
RIGHTS_PROBE = "probe:rights"
WRITES_PROBE = "probe:writes"
ACTIVITY = "news"
ACTIVITY_LENGTH = 4096  # entries that are kept at least
SINGLE = (
    *(
        MODELS,
        DEFAULT_MODEL,
        WORKERS,
        DUE,
        SWEEPER,
        DEAD,
        ARCHIVE,
        CALLBACKS,
        RETENTION,
        EXPORTER,
        LINK_SECRET,
        DATA_ID,
    ),
    *(DATA_LOST, ACTIVITY),
)

# Before the first colon of the keys that are made below.
PREFIXES = (
    *("job", "tomb", "ev", "pv", "img", "out", "val", "src", "q", "share", "line", "storage", "idem", "rate", "ctl"),
    *("callback", "usage"),
    *("model", "text", "vocabulary", "worker", "metrics"),
)


class Field(StrEnum):
    """The fields of a job's hash."""

    STATE = "state"
    MODEL = "model"
    TENANT = "tenant"  # whose it is; absent in jobs of before there were tenants
    SHARE = "share"  # key of the set of that tenant's jobs
    PRIORITY = "priority"
    PARAMS = "params"  # GenerationParams as JSON
    WORK = "work"  # row-steps: images x steps x rows per image
    DONE = "done"  # row-steps that are in the log
    ROWS = "rows"  # engine rows of one image
    ENTRY = "entry"  # id of the entry in the queue's stream
    OWNER = "owner"  # worker that may write
    EPOCH = "epoch"  # grows with each claim; owner and epoch fence every write
    NONCE = "nonce"  # of the last claim, so that a repeated call changes nothing
    ATTEMPTS = "attempts"
    SEQ = "seq"  # number of the latest event
    MODEL_HASH = "hash"  # of the model that drew what is in the log
    BASE = "base"  # events up to this number do not count for a resume: another model drew them
    BEGINS_AGAIN = "anew"  # epoch of the claim that set the base
    WARNINGS = "warnings"  # sentences about the request, as a JSON list; absent where there are none
    RETRY_OF = "retry_of"  # the dead job that this one repeats
    CANCEL = "cancel"  # 1 when asked for
    DEADLINE = "deadline"  # milliseconds, 0 is none
    TRACE = "trace"  # W3C traceparent of the request, where traces are asked for
    CALLBACK = "callback"  # address that is told of the end
    CREATED = "created"
    STARTED = "started"
    FINISHED = "finished"
    RESULT = "result"  # body of the terminal event
    STORAGE = "storage"  # bytes that its tenant is charged while it waits or runs
    CHARGE = "charge"  # when what it keeps expires, and its bytes, as its tenant's storage counts them
    SOURCE = "source"  # key of the picture that an edit starts from


def job_key(job_id: str) -> str:
    return f"job:{job_id}"


def tombstone_key(job_id: str) -> str:
    return f"tomb:{job_id}"


def events_key(job_id: str) -> str:
    return f"ev:{job_id}"


def previews_key(job_id: str) -> str:
    return f"pv:{job_id}"


def image_key(job_id: str, index: int) -> str:
    return f"img:{job_id}:{index}"


def outputs_key(job_id: str) -> str:
    return f"out:{job_id}"


def output_fields(kind: str, index: int) -> tuple[str, str]:
    """Fields of the bytes and of the media type."""
    return f"{kind}:{index}", f"{kind}:{index}:type"


def values_key(job_id: str) -> str:
    return f"val:{job_id}"


def values_field(image: int, frame: int) -> str:
    return f"{image}:{frame}"


def parse_values_field(name: str) -> tuple[int, int]:
    image, frame = name.split(":")
    return int(image), int(frame)


def source_key(job_id: str) -> str:
    return f"src:{job_id}"


def queue_key(model: str, priority: str = DEFAULT_PRIORITY) -> str:
    return f"q:{model}:{priority}"


def queue_keys(model: str) -> list[str]:
    """All queues of a model, the highest priority first."""
    return [queue_key(model, priority) for priority in PRIORITIES]


def idempotency_key(key: str, tenant: str = OPEN_TENANT) -> str:
    return f"idem:{tenant}:{key}"


def share_key(model: str, tenant: str) -> str:
    return f"share:{model}:{tenant}"


def line_key(model: str, tenant: str = "") -> str:
    """Key of those who were refused: by the model's queue, or by a tenant's share of it."""
    return f"line:{model}:{tenant}"


def storage_key(tenant: str) -> str:
    return f"storage:{tenant}"


def rate_key(tenant: str, *, by_link: bool = False) -> str:
    return f"rate:{tenant}:links" if by_link else f"rate:{tenant}"


def callback_key(job_id: str) -> str:
    return f"callback:{job_id}"


def usage_key(tenant: str, day: str) -> str:
    """`day` counts days of UTC since 1970."""
    return f"usage:{tenant}:{day}"


def control_key(worker: str) -> str:
    return f"ctl:{worker}"


def model_key(name: str) -> str:
    return f"model:{name}"


def vocabulary_key(model_name: str) -> str:
    return f"vocabulary:{model_name}"


def text_tokenizer_key(model_name: str) -> str:
    return f"text:{model_name}"


def worker_key(name: str) -> str:
    return f"worker:{name}"


def metrics_key(worker_name: str) -> str:
    return f"metrics:{worker_name}"


def job_keys(job_id: str, model: str, priority: str) -> list[str]:
    """Keys that every script about one job is given first."""
    names = [
        job_key(job_id),
        events_key(job_id),
        queue_key(model, priority),
        tombstone_key(job_id),
        previews_key(job_id),
    ]
    return [*names, DUE]


# What scripts make keys of by themselves, from parts that they alone know.
_MAKERS: tuple[Callable[..., str], ...] = (
    *(job_key, outputs_key, values_key, storage_key, control_key, queue_key),
    *(callback_key, usage_key),
)
_NAMES = {
    "GROUP": GROUP,
    "RELEASED": RELEASED,
    "OPEN_TENANT": OPEN_TENANT,
    "ACTIVITY": ACTIVITY,
    "ARCHIVE": ARCHIVE,
    "CALLBACKS": CALLBACKS,
}


def lua_names() -> str:
    """Names and makers of keys as Lua, which is joined in front of every script."""
    lines = [f"local {name} = '{value}'" for name, value in _NAMES.items()]
    lines.append(f"local ACTIVITY_LENGTH = {ACTIVITY_LENGTH}")
    lines.append(f"local PRIORITIES = {{{', '.join(repr(name) for name in PRIORITIES)}}}")
    for make in _MAKERS:
        pattern = make(*["%s"] * make.__code__.co_argcount)
        lines.append(f"local function {make.__name__}(...)\n  return string.format('{pattern}', ...)\nend")
    return "\n".join(lines) + "\n"
