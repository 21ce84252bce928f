"""What Airflow's provider manager reads: the connection type and its form, and the configuration's section."""

from __future__ import annotations

from typing import Any

from airflow_speechkit import __version__

_PASSWORD = {"type": ["string", "null"], "format": "password"}
_TEXT = {"type": ["string", "null"]}
_YES_NO = {"type": ["boolean", "null"]}
_RATE = {"type": ["integer", "null"], "minimum": 1}

#: The form's fields: name in the connection's extra -> (label, description, schema).
CONN_FIELDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "api_key": ("API key", "Of the service account. Or put it into Password.", _PASSWORD),
    "iam_token": ("IAM token", "Lives twelve hours at most and isn't renewed: for trying things out.", _PASSWORD),
    "authorized_key": (
        "Authorized key (JSON)",
        "The file that `yc iam key create` wrote, as it is. Or put it into Password.",
        _PASSWORD,
    ),
    "authorized_key_path": ("Authorized key (path)", "The same file, where tasks and triggers run.", _TEXT),
    "use_metadata": (
        "Virtual machine's service account",
        "Take tokens from the metadata service of the virtual machine.",
        _YES_NO,
    ),
    "folder_id": ("Folder id", "Told to API v3 only; the service account's own folder is used without it.", _TEXT),
    "api_version": (
        "API version",
        "Where a task names none.",
        {"type": ["string", "null"], "enum": ["v2", "v3"], "default": "v2"},
    ),
    "archive": (
        "Archive",
        "Where submissions and answers are kept, such as s3://bucket/speechkit-archive.",
        _TEXT,
    ),
    "aws_conn_id": ("Bucket's connection", "The amazon connection of the bucket; aws_default without it.", _TEXT),
    "data_logging_enabled": (
        "Let the service keep the recordings",
        "Sent as x-data-logging-enabled; without it the service keeps nothing.",
        _YES_NO,
    ),
    "ca_bundle": ("CA bundle (path)", "Certificate authorities to trust, in place of the usual ones.", _TEXT),
    "recognition_host": ("Host: recognition v2", "https://transcribe.api.cloud.yandex.net without it.", _TEXT),
    "recognition_v3_host": ("Host: recognition v3", "https://stt.api.cloud.yandex.net without it.", _TEXT),
    "operations_host": ("Host: operations", "https://operation.api.cloud.yandex.net without it.", _TEXT),
    "iam_host": ("Host: IAM", "https://iam.api.cloud.yandex.net without it.", _TEXT),
    "metadata_host": ("Host: metadata", "http://169.254.169.254 without it.", _TEXT),
    "storage_host": ("Host: Object Storage", "https://storage.yandexcloud.net without it.", _TEXT),
    "submits_per_hour": ("Submissions an hour", "The folder's quota; 500 without it.", _RATE),
    "checks_per_hour": ("Status checks an hour (v2)", "What tasks here may spend; 80 % of 2,500 without it.", _RATE),
    "checks_per_second": ("Status checks a second (v3)", "What tasks here may spend; 80 % of 5 without it.", _RATE),
}

_HIDDEN = ["login", "schema", "port"]
_RELABELING = {"host": "Host of everything (emulator)", "password": "API key, or authorized key (JSON)"}
_PLACEHOLDERS = {"host": "leave it empty for the real service"}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's information, in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-speechkit",
        "name": "Yandex SpeechKit",
        "description": "Asynchronous speech recognition with Yandex SpeechKit: from recordings to rows.",
        "versions": [__version__],
        "connection-types": [
            {
                "connection-type": "speechkit",
                "hook-class-name": "airflow_speechkit.hooks.speechkit.SpeechKitHook",
                "hook-name": "Yandex SpeechKit",
                "ui-field-behaviour": {
                    "hidden-fields": _HIDDEN,
                    "relabeling": _RELABELING,
                    "placeholders": _PLACEHOLDERS,
                },
                "conn-fields": {
                    name: {"label": label, "description": description, "schema": schema}
                    for name, (label, description, schema) in CONN_FIELDS.items()
                },
            }
        ],
        "config": {
            "speechkit": {
                "description": "Yandex SpeechKit's asynchronous recognition.",
                "options": {
                    "archive": {
                        "description": "Where submissions and raw answers are kept, where neither the operator nor "
                        "the connection says so: a path or URL that Airflow's object storage reaches.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://my_conn@bucket/speechkit-archive",
                        "default": None,
                    },
                    "archive_mode": {
                        "description": "The mode of the files of an archive on a disk, in octal. New folders may be "
                        "entered by whoever may read the files. By default 0640, or less where the umask says so.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "0660",
                        "default": None,
                    },
                    "triggerers": {
                        "description": "How many triggerers run side by side. Each takes its part of the status "
                        "checks that a connection's quota allows.",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": "2",
                        "default": "1",
                    },
                },
            }
        },
    }


def legacy_form_widgets() -> dict[str, Any]:
    """Return the same form as widgets, for Airflow before 3.2."""
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import optional

    widgets = {}
    for name, (label, description, schema) in CONN_FIELDS.items():
        text = {"label": lazy_gettext(label), "description": description}
        if "boolean" in schema["type"]:
            widgets[name] = BooleanField(**text)
        elif "integer" in schema["type"]:
            widgets[name] = IntegerField(**text, widget=BS3TextFieldWidget(), validators=[optional()])
        elif schema.get("format") == "password":
            widgets[name] = PasswordField(**text, widget=BS3PasswordFieldWidget(), validators=[optional()])
        else:
            widgets[name] = StringField(**text, widget=BS3TextFieldWidget(), validators=[optional()])
    return widgets


def legacy_field_behaviour() -> dict[str, Any]:
    """Return how the form looks, for Airflow before 3.2."""
    return {"hidden_fields": _HIDDEN, "relabeling": _RELABELING, "placeholders": _PLACEHOLDERS}
