"""The manifests for a cluster: valid, complete, and with the processes of the compose project."""

import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from comigs.cli.commands import app
from comigs.deploy.fleet import load_fleet
from comigs.deploy.kubernetes import kubernetes_text
from comigs.deploy.project import add_client, init_project, rotate
from comigs.errors import BadInput

SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "kubernetes.json").read_text("utf-8"))
SLUGS = ("de", "fr", "it")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deploy") / "My_Federation"
    init_project(folder, len(SLUGS), "laptop,board,phone-low", "multilingual", 365, 8000)
    done = CliRunner().invoke(app, ["deploy", "kubernetes", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def documents(folder):
    return list(yaml.safe_load_all((folder / "kubernetes.yaml").read_text("utf-8")))


@pytest.fixture(scope="module")
def kustomization(folder):
    return yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def services(folder):
    return yaml.safe_load((folder / "compose.yaml").read_text("utf-8"))["services"]


@pytest.fixture(scope="module")
def pods(documents):
    """What Deployments start, by name."""
    return {d["metadata"]["name"]: d["spec"]["template"] for d in of_kind(documents, "Deployment")}


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def validate(document):
    whole = {"$ref": f"#/$defs/{document['kind']}", "$defs": SCHEMA["$defs"]}
    jsonschema.Draft7Validator(whole).validate(document)


def container(pod):
    [only] = pod["spec"]["containers"]
    return only


def test_every_document_is_one_that_kubernetes_knows(documents):
    kinds = {document["kind"] for document in documents}
    assert kinds == {
        "Namespace", "NetworkPolicy", "Service", "PersistentVolumeClaim", "Deployment",
    }  # fmt: skip
    for document in documents:
        validate(document)


def test_the_schema_refuses_a_word_that_is_not_kubernetes(documents):
    deployment = json.loads(json.dumps(of_kind(documents, "Deployment")[0]))
    container(deployment["spec"]["template"])["readOnly"] = True
    with pytest.raises(jsonschema.ValidationError):
        validate(deployment)


def test_every_process_of_the_compose_project_is_there_with_the_same_words(pods, services):
    assert pods.keys() == services.keys()
    for name, service in services.items():
        own = container(pods[name])
        assert own["command"] == service["command"]
        environment = {each["name"]: each["value"] for each in own.get("env", [])}
        assert environment == service.get("environment", {})
        assert ["CMD", *own["readinessProbe"]["exec"]["command"]] == service["healthcheck"]["test"]
        seconds = own["readinessProbe"]["periodSeconds"], own["readinessProbe"]["timeoutSeconds"]
        assert [f"{number}s" for number in seconds] == [
            service["healthcheck"][key] for key in ("interval", "timeout")
        ]
        assert own["image"] == service["image"].replace("${COMIGS_VARIANT:-cpu}", "cpu")


def test_a_process_sees_the_same_files_at_the_same_places(pods, services, kustomization):
    """Apart from /models: a cluster's models are in its image."""
    secrets, maps = generated(kustomization, "secret"), generated(kustomization, "configMap")
    for name, service in services.items():
        mounts = {
            m["mountPath"]: m.get("readOnly", False) for m in container(pods[name])["volumeMounts"]
        }
        wanted = {"/tmp": False, "/keys": True}
        for volume in service["volumes"]:
            source, target, *mode = volume.split(":")
            if target.startswith("/keys/"):
                assert source.removeprefix("./") in secrets[name]
                assert Path(source).name == Path(target).name
            elif target != "/models":
                wanted[target] = bool(mode)
        assert mounts == wanted
        assert len(secrets[name]) == sum(":/keys/" in volume for volume in service["volumes"])
        assert (name in maps) == ("/data" in wanted)


def generated(kustomization, kind):
    return {each["name"]: each["files"] for each in kustomization[f"{kind}Generator"]}


def test_everything_named_is_defined(folder, documents, kustomization, pods):
    claims = {d["metadata"]["name"] for d in of_kind(documents, "PersistentVolumeClaim")}
    secrets, maps = generated(kustomization, "secret"), generated(kustomization, "configMap")
    used = set()
    for pod in pods.values():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for each in [container(pod), *pod["spec"].get("initContainers", [])]:
            assert {mount["name"] for mount in each["volumeMounts"]} <= volumes.keys()
        for volume in volumes.values():
            if "secret" in volume:
                assert volume["secret"]["secretName"] in secrets
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps
            if "persistentVolumeClaim" in volume:
                used.add(volume["persistentVolumeClaim"]["claimName"])
    assert used == claims
    for files in (*secrets.values(), *maps.values()):
        assert all((folder / file).is_file() for file in files)
    ports = {
        d["metadata"]["name"]: d["spec"]["ports"][0]["port"] for d in of_kind(documents, "Service")
    }
    for service in of_kind(documents, "Service"):
        assert service["spec"]["selector"]["process"] in pods
    for pod in pods.values():
        for word in container(pod)["command"]:
            if word.startswith(("--superlink=", "--runtime-api-address=")):
                host, port = word.partition("=")[2].split(":")
                assert ports[host] == int(port)
                assert pod["metadata"]["labels"]["calls"] == host


def test_no_key_is_in_a_manifest(folder):
    text = "".join(
        (folder / name).read_text() for name in ("kustomization.yaml", "kubernetes.yaml")
    )
    keys = [path for path in folder.rglob("*") if path.suffix in (".key", ".secret", ".crt")]
    assert len(keys) > 8
    for path in keys:
        assert not [line for line in path.read_text().splitlines()[1:-1] if line in text]
    assert "ca.key" not in text


def test_no_pod_has_more_rights_than_it_needs(documents, pods):
    [namespace] = of_kind(documents, "Namespace")
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert namespace["metadata"]["name"] == "my-federation"
    for pod in pods.values():
        whole = pod["spec"]["securityContext"]
        assert whole["runAsNonRoot"] is True
        assert whole["runAsUser"] == whole["runAsGroup"] == whole["fsGroup"] == 10001
        assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
        for each in [container(pod), *pod["spec"].get("initContainers", [])]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_a_device_has_the_limits_of_its_profile(pods, services):
    for slug in SLUGS:
        limits = container(pods[f"clientapp-{slug}"])["resources"]["limits"]
        service = services[f"clientapp-{slug}"]
        assert limits == {"cpu": service["cpus"], "memory": service["mem_limit"]}


def reached(documents, pods):
    """Who reaches whom: allowed by a policy at both ends."""

    def selected(selector):
        wanted = selector.get("matchLabels", {}).items()
        return {n for n, pod in pods.items() if wanted <= pod["metadata"]["labels"].items()}

    out, into = set(), set()
    for policy in of_kind(documents, "NetworkPolicy"):
        own = selected(policy["spec"]["podSelector"])
        for rules, there in (("egress", "to"), ("ingress", "from")):
            for rule in policy["spec"].get(rules, []):
                for peer in rule[there]:
                    others = selected(peer["podSelector"]) if "podSelector" in peer else set()
                    pairs = {(a, b) for a in own for b in others}
                    if rules == "egress":
                        out |= pairs
                    else:
                        into |= {(b, a) for a, b in pairs}
    return out & into


def test_a_clientapp_reaches_its_own_supernode_and_nobody_else(documents, pods):
    wanted = {("serverapp", "superlink")}
    for slug in SLUGS:
        wanted |= {(f"supernode-{slug}", "superlink"), (f"clientapp-{slug}", f"supernode-{slug}")}
    assert reached(documents, pods) == wanted
    [first, *_] = of_kind(documents, "NetworkPolicy")
    assert first["spec"]["podSelector"] == {}
    assert first["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_kustomize_builds_it_and_renewed_keys_have_new_names(folder, tmp_path):
    if not (kubectl := shutil.which("kubectl")):
        pytest.skip("there is no kubectl")
    project = tmp_path / "fed"
    shutil.copytree(folder, project)
    add_client(project, None, "board")

    def built():
        command = [kubectl, "kustomize", str(project)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return list(yaml.safe_load_all(text))

    before = built()
    rotate(project, None)
    named = [{d["metadata"]["name"] for d in of_kind(each, "Secret")} for each in (before, built())]
    assert [len(names) for names in named] == [2 + 2 * 4] * 2
    assert not set.intersection(*named)
    for document in of_kind(before, "Deployment"):
        [secret] = [
            v["secret"] for v in document["spec"]["template"]["spec"]["volumes"] if "secret" in v
        ]
        assert secret["secretName"] in named[0]
    assert {d["metadata"].get("namespace", "fed") for d in before} == {"fed"}


def test_a_name_that_a_cluster_does_not_take_is_refused(folder):
    fleet = load_fleet(folder)
    with pytest.raises(BadInput, match=r"has 64 characters, and names in a cluster at most 63; "):
        kubernetes_text("kubernetes.yaml", fleet, "a" * 64)
