"""What KubeRay's operator refuses in a RayCluster or RayJob, and what we ask beyond that.

The kinds' own schemas are a megabyte of another project's; this is what they, and the operator's
validation (KubeRay 1.6: `ray-operator/controllers/ray/utils/validation.go`), say of the fields
that our files have.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes_validate
from packaging.version import Version
from ray.scripts.scripts import start

from tests.deploy import secrecy
from tests.deploy.deploy_files import has_tag

Tree = Mapping[str, Any]

API = "ray.io/v1"
NAME = re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?")
FIRST_VERSION_WITH_TOKENS = Version("2.52.0")
SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")

# Fields that we use, each with its type; a required one is in REQUIRED.
FIELDS: Mapping[str, Mapping[str, type]] = {
    "RayCluster": {
        "rayVersion": str,
        "authOptions": dict,
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": dict,
        "headGroupSpec": dict,
        "workerGroupSpecs": list,
    },
    "RayJob": {
        "entrypoint": str,
        "submissionMode": str,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "backoffLimit": int,
        "submitterPodTemplate": dict,
        "rayClusterSpec": dict,
    },
    "headGroupSpec": {"rayStartParams": dict, "template": dict},
    "workerGroupSpecs": {
        "groupName": str,
        "replicas": int,
        "minReplicas": int,
        "maxReplicas": int,
        "rayStartParams": dict,
        "template": dict,
    },
    "autoscalerOptions": {
        "version": str,
        "idleTimeoutSeconds": int,
        "securityContext": dict,
    },
    "authOptions": {"mode": str},
}
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "RayCluster": ("headGroupSpec", "rayVersion", "authOptions"),
    "RayJob": ("entrypoint", "rayClusterSpec"),
    "headGroupSpec": ("template",),
    "workerGroupSpecs": ("groupName", "minReplicas", "maxReplicas", "template"),
    "autoscalerOptions": (),
    "authOptions": ("mode",),
}


def problems(resource: Tree) -> list[str]:
    """Everything that is wrong, one line each."""
    kind, spec = resource.get("kind", ""), resource.get("spec", {})
    if kind not in ("RayCluster", "RayJob"):
        return [f"kind must be RayCluster or RayJob, got {kind}"]
    found = []
    if resource.get("apiVersion") != API:
        found.append(f"apiVersion must be {API}, got {resource.get('apiVersion')}")
    if not NAME.fullmatch(resource.get("metadata", {}).get("name", "")):
        found.append("metadata.name must be a DNS label of at most 47 characters")
    found += _fields(kind, spec)
    if found:
        return found
    return [*(_job(spec) if kind == "RayJob" else _cluster(spec))]


def pods(resource: Tree) -> dict[str, Tree]:
    """The pod templates of a resource, by where they stand."""
    spec = resource["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    templates = {"head": cluster["headGroupSpec"]["template"]}
    for group in cluster.get("workerGroupSpecs", ()):
        templates[f"worker group {group['groupName']}"] = group["template"]
    if "submitterPodTemplate" in spec:
        templates["submitter"] = spec["submitterPodTemplate"]
    return templates


def pod_problems(template: Tree) -> list[str]:
    """What is wrong with a pod: by the schemas of Kubernetes, and by what we ask beyond them."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
    try:
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    spec = template["spec"]
    found = []
    context = spec.get("securityContext", {})
    if not context.get("runAsNonRoot") or context.get("runAsUser", 0) == 0:
        found.append("securityContext: must not run as root")
    for container in spec["containers"]:
        found += _container(container, {volume["name"] for volume in spec.get("volumes", ())})
    return found


def _fields(name: str, tree: Any) -> Iterator[str]:
    if not isinstance(tree, Mapping):
        yield f"{name}: must be a mapping"
        return
    known = FIELDS[name]
    for key in REQUIRED[name]:
        if key not in tree:
            yield f"{name}: {key} is missing"
    for key, value in tree.items():
        if key not in known:
            yield f"{name}: {key} is no field that we know"
        elif type(value) is not known[key]:
            yield f"{name}: {key} must be of type {known[key].__name__}, got {value!r}"
        elif key == "rayClusterSpec":
            yield from _fields("RayCluster", value)
        elif key in FIELDS:
            for part in value if isinstance(value, list) else [value]:
                yield from _fields(key, part)


def _job(spec: Tree) -> Iterator[str]:
    if spec.get("submissionMode", "K8sJobMode") not in SUBMISSION_MODES:
        yield f"submissionMode must be one of {', '.join(SUBMISSION_MODES)}"
    if spec.get("ttlSecondsAfterFinished", 0) > 0 and not spec.get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished goes with shutdownAfterJobFinishes alone"
    if spec.get("backoffLimit", 0) < 0:
        yield "backoffLimit must be >= 0"
    yield from secrecy.of_text("entrypoint", spec["entrypoint"])
    yield from _cluster(spec["rayClusterSpec"])


def _cluster(spec: Tree) -> Iterator[str]:
    if spec["authOptions"]["mode"] != "token":
        yield "authOptions.mode must be token"
    if Version(spec["rayVersion"]) < FIRST_VERSION_WITH_TOKENS:
        yield f"rayVersion must be >= {FIRST_VERSION_WITH_TOKENS}, got {spec['rayVersion']}"
    groups = spec.get("workerGroupSpecs", [])
    for group in groups:
        low, n, high = (group.get(key, 0) for key in ("minReplicas", "replicas", "maxReplicas"))
        if not 0 <= low <= n <= high:
            yield (
                f"{group['groupName']}: minReplicas <= replicas <= maxReplicas must hold, got "
                f"{low}, {n}, {high}"
            )
    if len({group["groupName"] for group in groups}) < len(groups):
        yield "two worker groups have one name"
    for group in (spec["headGroupSpec"], *groups):
        yield from _start_parameters(group.get("rayStartParams", {}))
    if "autoscalerOptions" in spec and not spec.get("enableInTreeAutoscaling"):
        yield "autoscalerOptions goes with enableInTreeAutoscaling alone"
    context = spec.get("autoscalerOptions", {}).get("securityContext", {})
    if spec.get("enableInTreeAutoscaling") and not context.get("runAsNonRoot"):
        yield "autoscalerOptions.securityContext: must not run as root"


def _start_parameters(parameters: Mapping[str, object]) -> Iterator[str]:
    known = {option.removeprefix("--") for p in start.params for option in p.opts}
    for name, value in parameters.items():
        if name not in known:
            yield f"rayStartParams: ray start has no option --{name}"
        if not isinstance(value, str):
            yield f"rayStartParams: {name} must be text, got {value!r}"


def _container(container: Tree, volumes: set[str]) -> Iterator[str]:
    name, context = container["name"], container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False or not context.get("runAsNonRoot"):
        yield f"{name}: must not be root, nor become it"
    if context.get("capabilities", {}).get("drop") != ["ALL"]:
        yield f"{name}: must drop all capabilities"
    if not has_tag(container["image"]):
        yield f"{name}: image {container['image']} has no tag"
    if not {"requests", "limits"} <= container.get("resources", {}).keys():
        yield f"{name}: must state its resources"
    for mount in container.get("volumeMounts", ()):
        if mount["name"] not in volumes:
            yield f"{name}: there is no volume {mount['name']}"
    plain = {
        entry["name"]: entry["value"] for entry in container.get("env", ()) if "value" in entry
    }
    yield from secrecy.of_environment(name, plain)
