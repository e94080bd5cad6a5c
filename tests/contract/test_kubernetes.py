"""The manifests of deploy/kubernetes render, are valid, restricted, and agree with the code and the image."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.cli.server import STOP_SECONDS
from app.core.setting_sources import SECRETS
from app.core.settings import Settings
from tests.support.containers import version
from tests.support.deployment import ROOT, final_stage

OVERLAYS = sorted((ROOT / "deploy" / "kubernetes" / "overlays").iterdir())
KUBERNETES = ("1.29", "1.37")
"""The oldest version that the manifests are for, and the newest."""
Manifests = dict[str, dict[str, Any]]


def rendered(overlay: Path) -> Manifests:
    """The objects of an overlay, by kind."""
    kubectl = Path(sys.executable).with_name("kubectl")
    text = subprocess.run([kubectl, "kustomize", overlay], check=True, capture_output=True, text=True).stdout
    objects = [each for each in yaml.safe_load_all(text) if each]
    assert len({each["kind"] for each in objects}) == len(objects)
    return {each["kind"]: each for each in objects}


@pytest.fixture(scope="module", params=OVERLAYS, ids=lambda path: path.name)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return rendered(request.param)


@pytest.fixture(scope="module")
def postgres() -> Manifests:
    return rendered(ROOT / "deploy" / "kubernetes" / "overlays" / "postgres")


def pods(manifests: Manifests) -> list[dict[str, Any]]:
    return [each["spec"]["template"]["spec"] for each in manifests.values() if "template" in each.get("spec", {})]


def receiver(manifests: Manifests) -> dict[str, Any]:
    [container] = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(container)


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_every_object_is_valid(manifests: Manifests, kubernetes: str) -> None:
    for each in manifests.values():
        kubernetes_validate.validate(each, kubernetes, strict=True)


def test_every_pod_fits_the_restricted_profile_and_runs_as_the_image_does(manifests: Manifests) -> None:
    user, _, group = final_stage()["USER"].rest.partition(":")
    for pod in pods(manifests):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (security["runAsUser"], security["runAsGroup"]) == (int(user), int(group))
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all({"secret", "emptyDir", "persistentVolumeClaim"} & set(volume) for volume in pod["volumes"])
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= set(container["resources"])
            assert container["image"] == f"rivya-receiver:{version()}"


def test_probes_ask_the_port_of_their_own_and_a_stopping_pod_has_time(manifests: Manifests) -> None:
    container, config = receiver(manifests), manifests["ConfigMap"]["data"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": int(final_stage()["EXPOSE"].rest), "metrics": int(config["RECEIVER_METRICS_PORT"])}
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {"metrics"}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    [_sleep, pause] = container["lifecycle"]["preStop"]["exec"]["command"]
    grace = manifests["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= int(pause) + STOP_SECONDS + 10


def test_settings_and_secrets_are_known(manifests: Manifests) -> None:
    config = manifests["ConfigMap"]
    assert set(config["data"]) <= {name.upper() for name in Settings.model_fields}
    assert receiver(manifests)["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
    for pod in pods(manifests):
        [mount] = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "secrets"]
        assert mount["mountPath"] == config["data"]["RECEIVER_SECRETS_DIR"]
        [volume] = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "secrets"]
        assert {item["path"] for item in volume.get("items", [])} <= set(SECRETS)


def test_only_what_rivya_calls_is_public(manifests: Manifests) -> None:
    [rule] = manifests["Ingress"]["spec"]["rules"]
    [path] = rule["http"]["paths"]
    assert path["path"] == "/rivya/webhook"
    assert manifests["ConfigMap"]["data"]["RECEIVER_PUBLIC_URL"] == f"https://{rule['host']}"
    [port] = manifests["Service"]["spec"]["ports"]
    assert port["targetPort"] == "http"
    assert path["backend"]["service"] == {
        "name": manifests["Service"]["metadata"]["name"],
        "port": {"name": port["name"]},
    }


def test_selectors_select_the_pods_of_the_deployment_alone(postgres: Manifests) -> None:
    labels = postgres["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [postgres[kind]["spec"]["selector"] for kind in ("Deployment", "PodDisruptionBudget")]
    assert [*(each["matchLabels"] for each in selectors), postgres["Service"]["spec"]["selector"]] == 3 * [labels]
    assert postgres["Job"]["spec"]["template"]["metadata"]["labels"] != labels


def test_sqlite_has_one_process_that_ends_before_the_next_begins() -> None:
    [overlay] = [path for path in OVERLAYS if path.name == "sqlite"]
    manifests = rendered(overlay)
    spec = manifests["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")
    [data] = [mount for mount in receiver(manifests)["volumeMounts"] if mount["name"] == "data"]
    assert data["mountPath"] == final_stage()["WORKDIR"].rest
    assert "PodDisruptionBudget" not in manifests


def test_postgresql_has_two_replicas_one_of_which_always_serves_and_a_job_that_migrates(postgres: Manifests) -> None:
    spec = postgres["Deployment"]["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert postgres["PodDisruptionBudget"]["spec"]["minAvailable"] == 1
    assert postgres["Job"]["spec"]["template"]["spec"]["containers"][0]["args"] == ["migrate"]
    assert postgres["ConfigMap"]["data"]["RECEIVER_MIGRATE_ON_START"] == "false"
