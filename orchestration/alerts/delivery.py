"""Sends an alert. What goes wrong is said without address, password or answer: they may hold secrets."""

import os
import smtplib
import ssl
from email.message import EmailMessage

from orchestration.alerts.alert import Alert
from orchestration.alerts.settings import Destination, Email, Webhook

SECONDS_TO_CONNECT = 5.0
SECONDS_TO_ANSWER = 10.0


class DeliveryFailed(Exception):
    """Says why, and nothing that was in the environment."""


def send(destination: Destination, alert: Alert) -> None:
    """One try. Raises DeliveryFailed."""
    try:
        if isinstance(destination, Webhook):
            post(destination, alert)
        else:
            mail(destination, alert)
    except (OSError, ValueError, smtplib.SMTPException) as error:
        code = getattr(error, "smtp_code", None)
        raise DeliveryFailed(type(error).__name__ + (f" {code}" if code else "")) from None


def post(webhook: Webhook, alert: Alert) -> None:
    """`text` is what Slack and others show; the rest is for programs. Redirections are not followed."""
    import requests

    answer = requests.post(
        value_of(webhook.url_variable),
        json=alert.model_dump(),
        timeout=(SECONDS_TO_CONNECT, SECONDS_TO_ANSWER),
        allow_redirects=False,
        stream=True,
    )
    answer.close()
    if not 200 <= answer.status_code < 300:
        raise DeliveryFailed(f"status {answer.status_code}")


def mail(email: Email, alert: Alert) -> None:
    message = EmailMessage()
    message["Subject"] = " ".join(alert.text.split())[:200]
    message["From"] = value_of(email.sender_variable)
    message["To"] = value_of(email.to_variable)
    message["Message-ID"] = f"<{alert.id.replace(' ', '-')}@alto>"
    lines = [alert.text, alert.link or "", f"{alert.kind}, {alert.time}", f"id {alert.id}"]
    message.set_content("\n\n".join(filter(None, lines)))
    with smtplib.SMTP(value_of(email.host_variable), email.port, timeout=SECONDS_TO_ANSWER) as server:
        if email.starttls:
            server.starttls(context=ssl.create_default_context())
        if email.user_variable and email.password_variable:
            server.login(value_of(email.user_variable), value_of(email.password_variable))
        server.send_message(message)


def value_of(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise DeliveryFailed(f"the variable {variable} is not set")
    return value
