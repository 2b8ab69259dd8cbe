"""Schemas of the YAML in docker/: the parts that are used, written down here. An unknown field is a mistake."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel

Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
Quantity = Annotated[str, Field(pattern=r"^\d+(m|Mi|Gi)?$")]
Seconds = Annotated[str, Field(pattern=r"^\d+s$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=False)


class Snake(BaseModel):
    model_config = ConfigDict(extra="forbid")


# compose


class Build(Snake):
    context: Literal[".."]
    dockerfile: str
    args: list[Literal["PYTHON_IMAGE"]]


class Health(Snake):
    test: list[str]
    interval: Seconds
    timeout: Seconds
    retries: int


class LogOptions(Snake):
    max_size: Annotated[str, Field(pattern=r"^\d+m$", alias="max-size")]
    max_file: Annotated[str, Field(pattern=r"^\d+$", alias="max-file")]


class Logging(Snake):
    driver: Literal["local"]
    options: LogOptions


class Condition(Snake):
    condition: Literal["service_healthy", "service_started"]


class Device(Snake):
    driver: Literal["nvidia"]
    count: int
    capabilities: list[Literal["gpu"]]


Deploy = dict[Literal["resources"], dict[Literal["reservations"], dict[Literal["devices"], list[Device]]]]


class Service(Snake):
    image: Annotated[str, Field(pattern=r"^\$\{[A-Z]+_IMAGE:-[\w./-]+:[\w.-]+\}$")] | None = None
    build: Build | None = None
    user: Annotated[str, Field(pattern=r"^[1-9]\d*:\d+$")] | None = None
    command: list[str] = []
    environment: dict[str, str] = {}
    volumes: list[str] = []
    ports: list[Annotated[str, Field(pattern=r"^127\.0\.0\.1:\d+:\d+$")]] = []
    networks: list[str] = []
    restart: Literal["unless-stopped"] | None = None
    stop_grace_period: Seconds | None = None
    read_only: bool = False
    tmpfs: list[Annotated[str, Field(pattern=r"^/\w+:size=\d+m$")]] = []
    cap_drop: list[Literal["ALL"]] = []
    security_opt: list[str] = []
    logging: Logging | None = None
    healthcheck: Health | None = None
    depends_on: dict[str, Condition] | list[str] = {}
    deploy: dict[Literal["resources"], dict[Literal["reservations"], dict[Literal["devices"], list[Device]]]] | None = (
        None
    )


class Compose(Snake):
    services: dict[Name, Service]
    networks: dict[str, dict[str, Any]] = {}
    volumes: dict[str, dict[str, Any]] = {}


# Kubernetes


class Metadata(Strict):
    name: Name | None = None
    labels: dict[str, str] = {}


class Selector(Strict):
    match_labels: dict[str, str]


class KeyRef(Strict):
    name: Name
    key: str


class ValueFrom(Strict):
    secret_key_ref: KeyRef


class Variable(Strict):
    name: str
    value: str | None = None
    value_from: ValueFrom | None = None


class ConfigMapRef(Strict):
    config_map_ref: dict[Literal["name"], Name]


class HttpGet(Strict):
    path: str
    port: str


class Command(Strict):
    command: list[str]


class Probe(Strict):
    http_get: HttpGet | None = None
    exec: Command | None = None
    period_seconds: int
    timeout_seconds: int
    failure_threshold: int = 3


class Capabilities(Strict):
    drop: list[Literal["ALL"]]


class ContainerSecurity(Strict):
    allow_privilege_escalation: Literal[False]
    read_only_root_filesystem: Literal[True]
    capabilities: Capabilities


class PodSecurity(Strict):
    run_as_non_root: Literal[True]
    run_as_user: Annotated[int, Field(ge=1)]
    fs_group: int | None = None
    seccomp_profile: dict[Literal["type"], Literal["RuntimeDefault"]]


Amounts = dict[Literal["cpu", "memory", "nvidia.com/gpu", "storage"], Quantity]


class Resources(Strict):
    requests: Amounts
    limits: Amounts = {}


class ContainerPort(Strict):
    name: Name
    container_port: Port


class Mount(Strict):
    name: Name
    mount_path: str


class PreStop(Strict):
    pre_stop: dict[Literal["exec"], Command]


class Container(Strict):
    name: Name
    image: str
    command: list[str] = []
    args: list[str] = []
    ports: list[ContainerPort]
    env: list[Variable] = []
    env_from: list[ConfigMapRef] = []
    resources: Resources
    security_context: ContainerSecurity
    volume_mounts: list[Mount]
    liveness_probe: Probe
    readiness_probe: Probe
    startup_probe: Probe | None = None
    lifecycle: PreStop | None = None


class Volume(Strict):
    name: Name
    empty_dir: dict[str, str]


class Spread(Strict):
    max_skew: int
    topology_key: str
    when_unsatisfiable: Literal["ScheduleAnyway", "DoNotSchedule"]
    label_selector: Selector


class Toleration(Strict):
    key: str
    operator: Literal["Exists"]
    effect: Literal["NoSchedule"]


class PodSpec(Strict):
    automount_service_account_token: Literal[False]
    termination_grace_period_seconds: int
    security_context: PodSecurity
    topology_spread_constraints: list[Spread] = []
    tolerations: list[Toleration] = []
    containers: list[Container]
    volumes: list[Volume] = []


class PodTemplate(Strict):
    metadata: Metadata
    spec: PodSpec


class RollingUpdate(Strict):
    max_surge: int
    max_unavailable: int


class Strategy(Strict):
    type: Literal["RollingUpdate"]
    rolling_update: RollingUpdate


class Claim(Strict):
    metadata: Metadata
    spec: dict[str, Any]


class DeploymentSpec(Strict):
    replicas: int | None = None
    selector: Selector
    strategy: Strategy
    template: PodTemplate


class StatefulSetSpec(Strict):
    service_name: Name
    replicas: int
    selector: Selector
    template: PodTemplate
    volume_claim_templates: list[Claim]


class Deployment(Strict):
    api_version: Literal["apps/v1"]
    kind: Literal["Deployment"]
    metadata: Metadata
    spec: DeploymentSpec


class StatefulSet(Strict):
    api_version: Literal["apps/v1"]
    kind: Literal["StatefulSet"]
    metadata: Metadata
    spec: StatefulSetSpec


class ServicePort(Strict):
    name: Name
    port: Port
    target_port: str


class ServiceSpec(Strict):
    cluster_ip: Annotated[Literal["None"] | None, Field(alias="clusterIP")] = None
    selector: dict[str, str]
    ports: list[ServicePort]


class KubeService(Strict):
    api_version: Literal["v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec


class BudgetSpec(Strict):
    min_available: int | None = None
    max_unavailable: int | None = None
    selector: Selector


class Budget(Strict):
    api_version: Literal["policy/v1"]
    kind: Literal["PodDisruptionBudget"]
    metadata: Metadata
    spec: BudgetSpec


class PolicyPort(Strict):
    protocol: Literal["TCP", "UDP"]
    port: Port


class Peer(Strict):
    pod_selector: Selector | None = None
    namespace_selector: Selector | None = None


class IngressRule(Strict):
    sources: Annotated[list[Peer], Field(alias="from")] = []
    ports: list[PolicyPort]


class EgressRule(Strict):
    to: list[Peer] = []
    ports: list[PolicyPort]


class PolicySpec(Strict):
    pod_selector: Selector
    policy_types: list[Literal["Ingress", "Egress"]]
    ingress: list[IngressRule]
    egress: list[EgressRule] = []


class NetworkPolicy(Strict):
    api_version: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    metadata: Metadata
    spec: PolicySpec


class TriggerFacts(Strict):
    server_address: str
    query: str
    threshold: Annotated[str, Field(pattern=r"^\d+$")]
    activation_threshold: Annotated[str, Field(pattern=r"^\d+$")]


class Trigger(Strict):
    type: Literal["prometheus"]
    metadata: TriggerFacts


class Fallback(Strict):
    failure_threshold: int
    replicas: int


class ScaledSpec(Strict):
    scale_target_ref: dict[Literal["name"], Name]
    min_replica_count: int
    max_replica_count: int
    polling_interval: int
    cooldown_period: int
    fallback: Fallback
    advanced: dict[Literal["horizontalPodAutoscalerConfig"], dict[str, Any]]
    triggers: list[Trigger]


class ScaledObject(Strict):
    api_version: Literal["keda.sh/v1alpha1"]
    kind: Literal["ScaledObject"]
    metadata: Metadata
    spec: ScaledSpec


class Endpoint(Strict):
    port: Name
    path: Literal["/metrics"]
    interval: Seconds


class MonitorSpec(Strict):
    job_label: str
    selector: Selector
    pod_metrics_endpoints: list[Endpoint]


class PodMonitor(Strict):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PodMonitor"]
    metadata: Metadata
    spec: MonitorSpec


Manifest = Annotated[
    Deployment | StatefulSet | KubeService | Budget | NetworkPolicy | ScaledObject | PodMonitor,
    Field(discriminator="kind"),
]
MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Manifest)


class Image(Strict):
    name: Name
    new_name: str
    new_tag: str


class Kustomization(Strict):
    api_version: Literal["kustomize.config.k8s.io/v1beta1", "kustomize.config.k8s.io/v1alpha1"]
    kind: Literal["Kustomization", "Component"]
    namespace: Name | None = None
    resources: list[str] = []
    components: list[str] = []
    labels: list[dict[Literal["pairs"], dict[str, str]]] = []
    config_map_generator: list[dict[str, Any]] = []
    images: list[Image] = []
    patches: list[dict[Literal["path"], str]] = []
