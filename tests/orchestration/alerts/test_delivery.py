"""What servers get, and what is said where they do not."""

import socket
from pathlib import Path

import pytest
import yaml

from data_contracts.errors import InputError
from orchestration.alerts.alert import KINDS, Alert
from orchestration.alerts.delivery import DeliveryFailed, send
from orchestration.alerts.settings import SETTINGS_FILE, Alerts, Email, Webhook, read_alerts
from tests.orchestration.alerts.servers import mail_server, make_certificate, web_server
from tests.orchestration.conftest import Alto

SECRET = "T0P-S3CRET"
ALERT = Alert(
    id="run 42",
    kind="run_failed",
    subject="altollm_sft",
    text="altollm_sft: run failed: out of memory",
    time="2030-01-07T03:00:00+00:00",
    link="http://dagster/runs/42",
)
WEBHOOK = Webhook(url_variable="HOOK")


@pytest.fixture
def email(monkeypatch: pytest.MonkeyPatch) -> Email:
    for name, value in {
        "HOST": "localhost",
        "SENDER": "alto@example.org",
        "TO": "one@example.org, two@example.org",
        "MAIL_USER": "alto",
        "MAIL_PASSWORD": SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    return Email(
        host_variable="HOST",
        sender_variable="SENDER",
        to_variable="TO",
        user_variable="MAIL_USER",
        password_variable="MAIL_PASSWORD",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def refusal(destination: Webhook | Email) -> str:
    with pytest.raises(DeliveryFailed) as raised:
        send(destination, ALERT)
    assert SECRET not in repr(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    return str(raised.value)


def test_a_webhook_gets_text_for_people_and_fields_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server() as hook:
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{hook.port}/services/{SECRET}")
        send(WEBHOOK, ALERT)
    assert hook.got == [
        {
            "id": "run 42",
            "kind": "run_failed",
            "subject": "altollm_sft",
            "text": "altollm_sft: run failed: out of memory",
            "time": "2030-01-07T03:00:00+00:00",
            "link": "http://dagster/runs/42",
        }
    ]
    assert hook.paths == [f"/services/{SECRET}"]


@pytest.mark.parametrize("status", [301, 307, 404, 500])
def test_a_webhook_that_refuses_is_a_failure_and_leads_nowhere_else(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web_server() as hook:
        hook.status = status
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{hook.port}/{SECRET}")
        assert refusal(WEBHOOK) == f"status {status}"
    assert hook.paths == [f"/{SECRET}"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}/{secret}", "{secret}", "http://{secret}:x/"])
def test_addresses_are_not_said(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HOOK", address.format(port=taken.getsockname()[1], secret=SECRET))
        refusal(WEBHOOK)
    monkeypatch.delenv("HOOK")
    assert refusal(WEBHOOK) == "the variable HOOK is not set"


def test_mail_is_encrypted_before_the_password_is_sent(
    email: Email, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with mail_server(certificate, SECRET) as box:
        send(email.model_copy(update={"port": box.port}), ALERT)
    (message,) = box.messages
    assert message["Subject"] == ALERT.text
    assert message["To"] == "one@example.org, two@example.org"
    assert ALERT.link in message.get_content()
    assert box.logins == [("alto", SECRET)]
    assert [line.split()[0] for line in box.log] == ["ehlo", "STARTTLS"]


def test_a_server_that_cannot_encrypt_or_is_not_trusted_gets_no_password(
    email: Email, tmp_path: Path
) -> None:
    with mail_server() as box:
        assert refusal(email.model_copy(update={"port": box.port})) == "SMTPNotSupportedError"
    with mail_server(make_certificate(tmp_path)) as doubtful:
        assert refusal(email.model_copy(update={"port": doubtful.port})) == "SSLCertVerificationError"
    assert box.logins == box.messages == doubtful.logins == doubtful.messages == []


def test_a_wrong_password_is_not_said(email: Email, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with mail_server(certificate, "another") as box:
        assert refusal(email.model_copy(update={"port": box.port})) == "SMTPAuthenticationError 535"


def test_the_shipped_settings_name_nobody() -> None:
    assert read_alerts(Path(__file__).parents[3]) == Alerts()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"webhooks: [{{url_variable: 'https://{SECRET}'}}]",
            "webhooks.0.url_variable: is to be the name of a",
        ),
        ("webhooks: [{}]", "webhooks.0.url_variable: Field required"),
        (f"webhooks: [{{url: {SECRET}, url_variable: A}}]", "webhooks.0.url: Extra inputs"),
        ("webhooks: [{url_variable: A, kinds: [run_faild]}]", "webhooks.0.kinds.0: Input should be"),
        ("webhooks: [{url_variable: A}, {url_variable: A}]", "webhook A is there twice"),
        (
            "emails: [{host_variable: A, sender_variable: A, to_variable: A, starttls: false,"
            " user_variable: A, password_variable: A}]",
            "a password is not sent without `starttls`",
        ),
        ("webhooks: [", "not valid YAML"),
    ],
)
def test_a_mistake_in_the_settings_is_one_clear_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / SETTINGS_FILE).write_text(text)
    with pytest.raises(InputError, match="alerts.yaml") as raised:
        read_alerts(tmp_path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert SECRET not in str(raised.value)


def test_alto_alert_says_who_is_told_and_sends_a_sample(
    alto: Alto, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "dvc.yaml").touch()
    (folder / "infra").mkdir()
    settings = folder / SETTINGS_FILE
    settings.write_text("webhooks: []\n")
    assert alto("alert", "--test").stdout == "infra/alerts.yaml names nobody to be told\n"
    settings.write_text(yaml.safe_dump({"webhooks": [{"url_variable": "HOOK"}, {"url_variable": "OTHER"}]}))
    assert alto("alert").stdout.splitlines()[0] == f"webhook HOOK: {', '.join(KINDS)}"
    with web_server() as hook:
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{hook.port}/{SECRET}")
        result = alto("alert", "--test")
    assert result.status == 1
    assert result.stdout.splitlines() == [
        "webhook HOOK: sent",
        "webhook OTHER: the variable OTHER is not set",
    ]
    assert [sent["kind"] for sent in hook.got] == ["sample"]
