"""What can be checked of docker/ without a container engine: schemas, files, ports, settings, users, and drains."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from oar_core.config import BackboneConfig
from oar_core.engine.config import EngineConfig
from oar_core.engine.engine import Engine
from oar_core.models.model import Model
from oar_core.models.oar.backbone import OarBackbone
from server.settings import Settings, environment_name
from server.worker.worker import FLUSH_SECONDS
from tests.surface.manifests import MANIFEST, Compose, Deployment, Kustomization, ScaledObject, StatefulSet

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
K8S = DOCKER / "k8s"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
KNOWN = {environment_name(field) for field in Settings.model_fields}
INSTRUCTIONS = {"ARG", "FROM", "WORKDIR", "RUN", "COPY", "USER", "ENV", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}
OVERLAYS = ("cpu", "gpu")


def instructions(path: Path) -> list[tuple[str, str]]:
    """Name and the rest of each instruction, lines that go on joined."""
    text = path.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def environment(path: Path) -> dict[str, str]:
    words = [word for name, rest in instructions(path) if name == "ENV" for word in shlex.split(rest)]
    return dict(word.split("=", 1) for word in words)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def manifests(folder: Path) -> list[Any]:
    """The objects that a kustomization names, as our schemas read them."""
    names = Kustomization.model_validate(load(folder / "kustomization.yaml")).resources
    documents = [document for name in names for document in yaml.safe_load_all((folder / name).read_text())]
    return [MANIFEST.validate_python(document) for document in documents]


BASE = manifests(K8S / "base")
DEPLOYMENTS = {found.metadata.name: found.spec.template.spec for found in BASE if isinstance(found, Deployment)}
LITERALS = dict(
    literal.split("=", 1) for literal in load(K8S / "base" / "kustomization.yaml")["configMapGenerator"][0]["literals"]
)


# images


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_parses_and_has_two_stages_of_one_pinned_image(path: Path) -> None:
    found = instructions(path)
    assert {name for name, _ in found} <= INSTRUCTIONS
    assert [rest for name, rest in found if name == "FROM"] == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]
    (argument,) = (rest for name, rest in found if name == "ARG")
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.11\.\d+-slim-bookworm", argument)
    assert next(rest for name, rest in found if name == "ENTRYPOINT") in ('["oar", "api"]', '["oar", "worker"]')
    for name, rest in found:
        if name in {"ENTRYPOINT", "HEALTHCHECK"}:
            exec_form = rest[rest.index("[") :]
            assert all(isinstance(word, str) for word in yaml.safe_load(exec_form))
    assert "pip" not in "".join(
        rest for name, rest in found[found.index(("FROM", "${PYTHON_IMAGE}")) :] if name == "RUN"
    )


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_copied_path_is_in_the_repository(path: Path) -> None:
    copied = [rest.split()[:-1] for name, rest in instructions(path) if name == "COPY" and not rest.startswith("--")]
    assert copied
    assert [name for names in copied for name in names if not (ROOT / name).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not {name for names in copied for name in names} & set(ignored)


@pytest.mark.parametrize(
    "path", [*DOCKERFILES, *DOCKER.glob("*.yaml"), *K8S.rglob("*.yaml")], ids=lambda path: path.name
)
def test_every_variable_is_a_setting(path: Path) -> None:
    named = set(re.findall(r"\b(OAR_[A-Z_]+|REDIS_URL)\b", path.read_text()))
    assert named <= KNOWN


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_do_not_run_as_root_and_watch_their_health_on_the_port_that_they_expose(path: Path) -> None:
    found = dict(instructions(path))
    assert found["USER"] == "10001"
    variables = environment(path)
    port = variables["OAR_PORT"] if path.name.startswith("api") else variables["OAR_WORKER_METRICS_PORT"]
    assert found["EXPOSE"] == port
    assert f":{port}/" in found["HEALTHCHECK"]
    Settings(**{key.removeprefix("OAR_").lower(): value for key, value in variables.items() if key in KNOWN})


# compose


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml", "compose.keys.yaml"])
def test_compose_keeps_to_the_schema_and_names_what_there_is(name: str) -> None:
    compose = Compose.model_validate(load(DOCKER / name))
    for service in compose.services.values():
        if service.build is not None:
            assert (ROOT / service.build.dockerfile).exists()
        if name == "compose.yaml":
            assert (service.image is None) != (service.build is None)
            assert set(service.networks) <= set(compose.networks)
            assert set(service.depends_on) <= set(compose.services)
            for volume in service.volumes:
                source = volume.split(":")[0]
                assert source in compose.volumes or (DOCKER / source).exists(), volume


@pytest.mark.parametrize("overlay", [None, "compose.gpu.yaml", "compose.keys.yaml"])
def test_no_service_of_compose_is_root_or_has_a_capability_or_writes_outside_its_volumes(overlay: str | None) -> None:
    services: dict[str, Any] = load(DOCKER / "compose.yaml")["services"]
    for name, others in (load(DOCKER / overlay)["services"] if overlay else {}).items():
        services[name] |= others
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, "whoever fills the log fills no disk"
        assert not service.keys() & {"cap_add", "privileged", "devices", "pid", "ipc", "network_mode", "userns_mode"}, (
            name
        )
        user = service.get("user") or dict(instructions(ROOT / service["build"]["dockerfile"]))["USER"]
        assert int(user.split(":")[0]) > 0, name
        assert all(volume.endswith(":ro") or not volume.startswith((".", "/")) for volume in service.get("volumes", ()))


def containers(document: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every container of any kind, wherever it stands in a manifest, with its pod."""
    if isinstance(document, list):
        for part in document:
            yield from containers(part)
    elif isinstance(document, dict):
        for name, part in document.items():
            if name in {"containers", "initContainers", "ephemeralContainers"}:
                yield from ((container, document) for container in part)
            else:
                yield from containers(part)


def test_no_container_of_kubernetes_is_root_or_has_a_capability_or_writes_outside_its_volumes() -> None:
    found = [
        (path.name, container, pod)
        for path in K8S.rglob("*.yaml")
        for document in yaml.safe_load_all(path.read_text())
        for container, pod in containers(document)
    ]
    whole = {container["name"] for _, container, _ in found if "image" in container}
    assert whole == {"api", "worker", "redis"}
    for name, container, pod in found:
        if "image" not in container:  # a patch of one that is looked at
            assert container["name"] in whole, name
            assert "securityContext" not in {*container, *pod}, name
            continue
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        for volume in pod.get("volumes", ()):
            assert volume.keys() == {"name", "emptyDir"}, "nothing of the host"
            assert volume["emptyDir"]["sizeLimit"]


def test_what_listens_on_all_addresses_knows_its_names() -> None:
    """Both images listen on 0.0.0.0: the check of names holds there, and probes and scrapes by IP address pass it."""
    api = Compose.model_validate(load(DOCKER / "compose.yaml")).services["api"]
    for value in (default_of(api.environment["OAR_ALLOWED_HOSTS"]), LITERALS["OAR_ALLOWED_HOSTS"]):
        assert Settings(allowed_hosts=value).allowed_hosts  # pyright: ignore[reportArgumentType]
    for name in ("OAR_ROOT_PATH", "OAR_TRUSTED_PROXIES", "OAR_ALLOWED_ORIGINS"):
        assert default_of(api.environment[name]) == "", "which is unset"


def default_of(value: str) -> str:
    """Of `${NAME:-default}`."""
    found = re.fullmatch(r"\$\{\w+:-(.*)\}", value)
    assert found is not None
    return found[1]


def test_compose_says_that_it_is_open_and_how_to_lock_it() -> None:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    assert "NOBODY NEEDS A KEY" in text
    assert "compose.keys.yaml" in text
    locked = Compose.model_validate(load(DOCKER / "compose.keys.yaml")).services["api"]
    file = locked.environment["OAR_API_KEYS"]
    assert any(f":{file}:ro" in volume for volume in locked.volumes)


def test_probes_ask_no_proxy() -> None:
    """Engines put the host's `http_proxy` into every container."""
    for path in DOCKERFILES:
        (probe,) = (rest for name, rest in instructions(path) if name == "HEALTHCHECK")
        assert "ProxyHandler({})" in probe, path.name


def test_compose_wires_the_parts() -> None:
    services = Compose.model_validate(load(DOCKER / "compose.yaml")).services
    redis = " ".join(services["redis"].command)
    assert "--requirepass" in redis
    assert "--appendonly yes" in redis
    assert "noeviction" in redis
    assert not services["redis"].ports, "the database is for API and workers alone"
    for name in ("api", "worker"):
        assert "@redis:6379" in services[name].environment["REDIS_URL"]
        assert "jobs" in set(services[name].networks) & set(services["redis"].networks)
        assert set(services[name].networks) & set(services["prometheus"].networks)
    scraped = {
        job["job_name"]: (job["dns_sd_configs"][0]["names"], job["dns_sd_configs"][0]["port"])
        for job in load(DOCKER / "prometheus" / "prometheus.yml")["scrape_configs"]
    }
    assert scraped == {"oar-api": (["api"], 8000), "oar-worker": (["worker"], 9101)}
    assert services["api"].environment["OAR_METRICS_WORKERS"] == "false", "workers are scraped themselves"
    assert set(services["grafana"].networks) & set(services["prometheus"].networks)


def test_no_secret_is_written_down() -> None:
    for path in [*DOCKER.rglob("*.y*ml")]:
        for line in path.read_text().splitlines():
            if re.search(r"PASSWORD|requirepass|AUTH", line):
                assert re.search(r"\$\{?\$?\w+|secretKeyRef|valueFrom|name:|^#", line.strip()), (path, line)
    assert not list(DOCKER.rglob("*secret*"))
    assert "kind: Secret" not in "".join(path.read_text() for path in K8S.rglob("*.yaml"))


def test_a_worker_is_given_longer_than_its_drain() -> None:
    worker = Compose.model_validate(load(DOCKER / "compose.yaml")).services["worker"]
    assert worker.stop_grace_period is not None
    grace, drain = int(worker.stop_grace_period[:-1]), float(worker.environment["OAR_DRAIN_SECONDS"])
    assert grace >= drain + FLUSH_SECONDS + 10
    seconds = DEPLOYMENTS["oar-worker"].termination_grace_period_seconds
    assert seconds == float(LITERALS["OAR_DRAIN_SECONDS"]) + 15
    assert seconds >= float(LITERALS["OAR_DRAIN_SECONDS"]) + FLUSH_SECONDS + 10


# Kubernetes


@pytest.mark.parametrize("folder", ["base", "components/autoscaling", "components/monitoring"])
def test_manifests_keep_to_the_schemas(folder: str) -> None:
    found = manifests(K8S / folder)
    assert found
    assert all(document.metadata.name for document in found)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_names_what_there_is_and_patches_what_there_is(overlay: str) -> None:
    folder = K8S / "overlays" / overlay
    kustomization = Kustomization.model_validate(load(folder / "kustomization.yaml"))
    for name in (*kustomization.resources, *kustomization.components):
        assert (folder / name / "kustomization.yaml").exists()
    assert {image.name for image in kustomization.images} == {"oar-api", "oar-worker"}
    assert all(image.new_tag not in {"latest", ""} for image in kustomization.images)
    (patch,) = [load(folder / patch["path"]) for patch in kustomization.patches]
    container = patch["spec"]["template"]["spec"]["containers"][0]
    assert patch["metadata"]["name"] in DEPLOYMENTS
    assert container["name"] == DEPLOYMENTS[patch["metadata"]["name"]].containers[0].name
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    settings = Settings(**{name.removeprefix("OAR_").lower(): value for name, value in variables.items()})
    assert settings.device == {"cpu": "cpu", "gpu": "cuda"}[overlay]
    has_gpu = {kind: "nvidia.com/gpu" in container["resources"][kind] for kind in ("requests", "limits")}
    assert set(has_gpu.values()) == {overlay == "gpu"}


def test_the_settings_of_the_cluster_are_good_ones() -> None:
    settings = Settings(**{name.removeprefix("OAR_").lower(): value for name, value in LITERALS.items()})
    assert not settings.metrics_workers, "workers are scraped themselves"


def test_services_policies_budgets_and_probes_find_their_pods_and_ports() -> None:
    pods = {
        found.spec.template.metadata.labels["app.kubernetes.io/name"]: found.spec.template.spec.containers[0]
        for found in BASE
        if isinstance(found, Deployment | StatefulSet)
    }
    numbers = {name: {port.container_port for port in container.ports} for name, container in pods.items()}
    assert numbers["oar-api"] == {Settings().port}
    for found in BASE:
        match found.kind:
            case "Service":
                container = pods[found.spec.selector["app.kubernetes.io/name"]]
                assert {port.target_port for port in found.spec.ports} <= {port.name for port in container.ports}
            case "NetworkPolicy":
                name = found.spec.pod_selector.match_labels["app.kubernetes.io/name"]
                assert {port.port for rule in found.spec.ingress for port in rule.ports} == numbers[name]
            case "PodDisruptionBudget":
                assert found.spec.selector.match_labels["app.kubernetes.io/name"] in DEPLOYMENTS
                assert (found.spec.min_available is None) != (found.spec.max_unavailable is None)
            case _:
                labels = found.spec.template.metadata.labels
                assert found.spec.selector.match_labels.items() <= labels.items()
    for container in pods.values():
        names = {port.name for port in container.ports}
        for probe in (container.liveness_probe, container.readiness_probe, container.startup_probe):
            if probe is not None and probe.http_get is not None:
                assert probe.http_get.port in names
                assert probe.http_get.path in {"/live", "/ready", "/metrics"}
    guarded = {found.spec.pod_selector.match_labels["app.kubernetes.io/name"] for found in BASE
               if found.kind == "NetworkPolicy"}  # fmt: skip
    assert guarded == set(pods)


def test_monitors_watch_the_jobs_that_the_alerts_speak_of() -> None:
    monitors = {found.metadata.name: found for found in manifests(K8S / "components" / "monitoring")}
    rules = (DOCKER / "prometheus" / "rules.yml").read_text()
    assert set(re.findall(r'job="(oar-\w+)"', rules)) == set(monitors)
    for name, monitor in monitors.items():
        ports = {port.name for port in DEPLOYMENTS[name].containers[0].ports}
        assert {endpoint.port for endpoint in monitor.spec.pod_metrics_endpoints} <= ports
        assert monitor.spec.job_label == "app.kubernetes.io/name"
        assert monitor.spec.selector.match_labels[monitor.spec.job_label] == name


def test_the_autoscaler_scales_the_worker_by_our_metric() -> None:
    (scaled,) = manifests(K8S / "components" / "autoscaling")
    assert isinstance(scaled, ScaledObject)
    assert scaled.spec.scale_target_ref["name"] == "oar-worker"
    (trigger,) = scaled.spec.triggers
    assert trigger.metadata.query == "sum(oar_queue_depth)"
    replicas = next(found for found in BASE if found.metadata.name == "oar-worker").spec.replicas
    assert replicas is None, "a number here would undo the autoscaler's at each apply"
    assert scaled.spec.min_replica_count <= scaled.spec.fallback.replicas <= scaled.spec.max_replica_count


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_builds_the_overlay(overlay: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no `kubectl`, whose kustomize would build the overlays")
    done = subprocess.run(
        [kubectl, "kustomize", str(K8S / "overlays" / overlay)],
        env={"KUBECONFIG": "/dev/null", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    built = [document for document in yaml.safe_load_all(done.stdout) if document["kind"] != "ConfigMap"]
    found = {(document["kind"], document["metadata"]["name"]): document for document in built}
    for document in built:
        assert document["metadata"].pop("namespace") == "oar"
        MANIFEST.validate_python(document)
    worker = found["Deployment", "oar-worker"]["spec"]["template"]["spec"]["containers"][0]
    assert worker["image"].startswith(f"registry.example/oar-worker-{'cuda' if overlay == 'gpu' else 'cpu'}:")
    names = [variable["name"] for variable in worker["env"]]
    assert {"REDIS_URL", "OAR_DEVICE", "OAR_WORKER_METRICS_PORT"} <= set(names)
    assert worker["envFrom"][0]["configMapRef"]["name"].startswith("oar-settings-")


# docs/operating.md


def bytes_of_a_slot(config: BackboneConfig, bytes_of_a_number: int) -> int:
    """The formula of docs/operating.md."""
    height, width = config.grid
    entries = config.max_condition + height * width
    return 2 * (config.num_context_layers + 1) * entries * config.width * bytes_of_a_number


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("num_slots", [2, 5])
def test_the_formula_of_the_cache_is_what_is_allocated(tiny_pipeline: Model, dtype: str, num_slots: int) -> None:
    """On a CPU, where the cache is in fp32 whatever the weights are."""
    import torch

    config = BackboneConfig(
        grid=(3, 5), width=32, num_heads=2, num_context_layers=3, num_query_layers=1, max_condition=7
    )
    backbone = OarBackbone(config).to(dtype=getattr(torch, dtype))
    engine = Engine(backbone, tiny_pipeline.unconditional_ids, EngineConfig(num_slots))
    assert engine.cache_bytes == num_slots * bytes_of_a_slot(config, 4)


def test_the_figures_of_the_cache_in_the_docs() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    formula = "2 * (num_context_layers + 1) * (max_condition + h * w) * width * bytes of a number"
    assert formula in text
    config = BackboneConfig.from_dict(load(ROOT / "weights" / "sprites-64" / "config.json")["backbone"])
    rows = re.findall(r"^\| sprites-64 \| (\w+) \| ([\d,]+) \| (\d+) MiB \| (\d+) MiB \|$", text, re.M)
    assert len(rows) == 2
    for dtype, slot, few, many in rows:
        expected = bytes_of_a_slot(config, {"float32": 4, "bfloat16": 2}[dtype])
        assert int(slot.replace(",", "")) == expected
        assert (int(few), int(many)) == (round(64 * expected / 2**20), round(256 * expected / 2**20))


def test_what_the_docs_name_exists() -> None:
    for path in (ROOT / "docs" / "operating.md", ROOT / "docs" / "metrics.md", ROOT / "docs" / "runbook.md"):
        text = path.read_text()
        assert set(re.findall(r"\bOAR_[A-Z_]+\b", text)) <= KNOWN | {"OAR_URL"}
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (path.parent / target).exists(), target
        for target in re.findall(r"\bdocker/[\w./-]+\.yaml|\bdocker/k8s/[\w/]+", text):
            assert (ROOT / target).exists(), target
        for make_target in re.findall(r"`make ([\w-]+)`", text):
            assert re.search(rf"^{make_target}:", (ROOT / "Makefile").read_text(), re.M)
