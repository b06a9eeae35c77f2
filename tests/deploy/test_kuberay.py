"""RayCluster and RayJob: what Kubernetes and the operator would refuse, and more (contract)."""

from copy import deepcopy

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from yaml import safe_load

from tests.deploy.command_lines import problem, split
from tests.deploy.deploy_files import DOCKER, KUBERAY, load
from tests.deploy.dockerfiles import build_arguments, parse
from tests.deploy.ray_kinds import pod_problems, pods, problems
from tests.deploy.test_dockerfiles import PROJECT

CLUSTER, JOB = load(KUBERAY / "raycluster.yaml"), load(KUBERAY / "rayjob.yaml")
PODS = {
    f"{resource['kind']}, {name}": template
    for resource in (CLUSTER, JOB)
    for name, template in pods(resource).items()
}


def changed(resource, path, value):
    """A copy with another value at a dotted path; without the key, if the value is None."""
    copy = deepcopy(resource)
    *parents, key = (int(part) if part.isdigit() else part for part in path.split("/"))
    place = copy
    for part in parents:
        place = place[part]
    if value is None:
        del place[key]
    else:
        place[key] = value
    return copy


@pytest.mark.parametrize("resource", [CLUSTER, JOB], ids=lambda resource: resource["kind"])
def test_resource_keeps_the_rules_of_its_kind(resource):
    assert problems(resource) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("kind", "RayClutser", "kind must be RayCluster or RayJob"),
        ("apiVersion", "ray.io/v1alpha1", "apiVersion must be ray.io/v1"),
        ("metadata/name", "Gan_Cluster", "must be a DNS label"),
        ("spec/headGroupSpecs", {}, "headGroupSpecs is no field that we know"),
        ("spec/headGroupSpec", None, "headGroupSpec is missing"),
        ("spec/rayVersion", 2.6, "rayVersion must be of type str"),
        ("spec/rayVersion", "2.51.0", "rayVersion must be >= 2.52.0"),
        ("spec/authOptions", None, "authOptions is missing"),
        ("spec/authOptions/mode", "disabled", "authOptions.mode must be token"),
        ("spec/workerGroupSpecs/1/replicas", 3, "minReplicas <= replicas <= maxReplicas"),
        ("spec/workerGroupSpecs/1/minReplicas", None, "minReplicas is missing"),
        ("spec/workerGroupSpecs/1/groupName", "cpu", "two worker groups have one name"),
        ("spec/headGroupSpec/rayStartParams/num-cpus", 0, "num-cpus must be text, got 0"),
        ("spec/headGroupSpec/rayStartParams/num-cpu", "0", "has no option --num-cpu"),
        ("spec/enableInTreeAutoscaling", False, "goes with enableInTreeAutoscaling alone"),
        ("spec/autoscalerOptions/securityContext", None, "must not run as root"),
    ],
)
def test_a_fault_in_a_cluster_is_found(path, value, expected):
    found = problems(changed(CLUSTER, path, value))
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec/entrypoint", None, "entrypoint is missing"),
        ("spec/entrypoint", "gan run --token=x", "entrypoint: a secret as an option"),
        ("spec/submissionMode", "Job", "submissionMode must be one of"),
        ("spec/shutdownAfterJobFinishes", False, "goes with shutdownAfterJobFinishes alone"),
        ("spec/backoffLimit", -1, "backoffLimit must be >= 0"),
        ("spec/rayClusterSpec/authOptions/mode", "disabled", "must be token"),
        ("spec/rayClusterSpec/headGroup", {}, "headGroup is no field that we know"),
    ],
)
def test_a_fault_in_a_job_is_found(path, value, expected):
    found = problems(changed(JOB, path, value))
    assert any(expected in problem for problem in found), found


def test_every_pod_is_seen():
    assert len(PODS) == 7


@pytest.mark.parametrize("name", PODS)
def test_pod_is_one_that_kubernetes_takes_and_ours(name):
    assert pod_problems(PODS[name]) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec/containers/0/imagePullPolicyy", "Always", "imagePullPolicyy"),
        ("spec/containers/0/ports/0/containerPort", "6379", "'6379' is not of type"),
        ("spec/containers/0/resources/limits", [], "spec.containers.0.resources.limits"),
        ("spec/securityContext/runAsUser", 0, "must not run as root"),
        ("spec/securityContext/runAsNonRoot", None, "must not run as root"),
        ("spec/containers/0/securityContext", None, "must not be root, nor become it"),
        ("spec/containers/0/securityContext/capabilities/drop", [], "drop all capabilities"),
        ("spec/containers/0/image", "gan-trainer", "image gan-trainer has no tag"),
        ("spec/containers/0/resources", None, "must state its resources"),
        ("spec/volumes/0/name", "other", "there is no volume mlflow"),
        ("spec/containers/0/env/0/name", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN must name a file"),
        ("spec/containers/0/env/0/value", "https://a:b@example.com", "a password in an address"),
    ],
)
def test_a_fault_in_a_pod_is_found(path, value, expected):
    found = pod_problems(changed(CLUSTER["spec"]["headGroupSpec"]["template"], path, value))
    assert any(expected in problem for problem in found), found


def test_a_secret_by_reference_is_none_in_the_file():
    template = deepcopy(CLUSTER["spec"]["headGroupSpec"]["template"])
    reference = "{name: A_TOKEN, valueFrom: {secretKeyRef: {name: a, key: token}}}"
    template["spec"]["containers"][0]["env"].append(safe_load(reference))
    assert pod_problems(template) == []


def test_both_files_hold_the_same_cluster():
    assert JOB["spec"]["rayClusterSpec"] == CLUSTER["spec"]


def test_gpus_are_there_when_they_are_asked_for_alone():
    gpu = CLUSTER["spec"]["workerGroupSpecs"][1]
    limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (gpu["minReplicas"], gpu["replicas"]) == (0, 0)
    assert limits["nvidia.com/gpu"] == "1"


def test_ray_is_of_a_version_that_the_image_may_have():
    (ray,) = (
        Requirement(text) for text in PROJECT["project"]["dependencies"] if text.startswith("ray[")
    )
    assert Version(CLUSTER["spec"]["rayVersion"]) in ray.specifier


def test_pods_have_the_user_and_home_of_the_image():
    text = (DOCKER / "trainer.Dockerfile").read_text(encoding="utf-8")
    user = int(build_arguments(parse(text))["UID"])
    for template in PODS.values():
        context = template["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (user, user)
        mounts = template["spec"]["containers"][0].get("volumeMounts", ())
        for mount in mounts:
            if mount["mountPath"].startswith("/home/"):
                assert mount["mountPath"].rpartition("/")[0] in text


def test_credentials_are_where_the_setting_says():
    container = CLUSTER["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    settings = {entry["name"]: entry["value"] for entry in container["env"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert settings["AWS_SHARED_CREDENTIALS_FILE"] == f"{mounts['storage']}/credentials"


def test_the_job_runs_a_command_that_there_is():
    (command,) = split(JOB["spec"]["entrypoint"])
    assert command[0] == "gan"
    assert problem(command) is None
