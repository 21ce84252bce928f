"""What Airflow's provider manager reads: the connection type with its form, and the configuration's section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from airflow_speechkit import __version__


@dataclass(frozen=True)
class Field:
    """A field of the connection's extra.

    :param kind: type of its value; `Any` for a JSON object or its text
    :param label: in the connection form; a field without one isn't there
    :param description: in the connection form
    :param is_secret: whether logs and the form hide it
    """

    kind: Any
    label: str = ""
    description: str = ""
    is_secret: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema, as the connection form needs it."""
        name = {bool: "boolean", int: "integer", float: "integer"}.get(self.kind, "string")
        schema: dict[str, Any] = {"type": [name, "null"]}
        if name == "integer":
            schema["minimum"] = 1
        if self.is_secret:
            schema["format"] = "password"
        choices = get_args(self.kind)
        if choices:
            schema |= {"enum": list(choices), "default": choices[0]}
        return schema


#: The fields that a connection's extra can have, in the order of the form.
FIELDS: dict[str, Field] = {
    "archive": Field(
        str, "Archive (required)", "Folder for submissions and answers, for example s3://my-bucket/speechkit-archive."
    ),
    "aws_conn_id": Field(str, "Bucket connection", "Amazon connection of the buckets. Default: aws_default."),
    "api_version": Field(Literal["v2", "v3"], "API version", "Used by tasks that do not set one."),
    "folder_id": Field(str, "Folder ID", "Sent to API v3 only. Default: the folder of the service account."),
    "authorized_key_path": Field(
        str, "Path of the authorized key", "Instead of a key above: a JSON file where tasks and triggers run."
    ),
    "use_metadata": Field(
        bool, "Service account of the virtual machine", "Instead of a key above: tokens from its metadata service."
    ),
    "iam_token": Field(
        str, "IAM token", "Instead of a key above, for a test: it expires within 12 hours.", is_secret=True
    ),
    "data_logging_enabled": Field(bool, "Data logging", "Allow the service to keep your recordings. Default: no."),
    "submits_per_hour": Field(int, "Submissions per hour", "Quota of the folder. Default: 500."),
    "checks_per_hour": Field(float, "Status checks per hour (v2)", "Limit for this Airflow. Default: 2000."),
    "checks_per_second": Field(float, "Status checks per second (v3)", "Limit for this Airflow. Default: 4."),
    "storage_host": Field(str, "Object Storage host", "Default: https://storage.yandexcloud.net."),
    "recognition_host": Field(str, "Recognition host (v2)", "Default: https://transcribe.api.cloud.yandex.net."),
    "recognition_v3_host": Field(str, "Recognition host (v3)", "Default: https://stt.api.cloud.yandex.net."),
    "operations_host": Field(str, "Operations host", "Default: https://operation.api.cloud.yandex.net."),
    "iam_host": Field(str, "IAM host", "Default: https://iam.api.cloud.yandex.net."),
    "metadata_host": Field(str, "Metadata host", "Default: http://169.254.169.254."),
    "ca_bundle": Field(str, "CA bundle", "Path of a file with the certificate authorities to trust."),
    # Not in the form: a key belongs in the password, which Airflow never shows.
    "api_key": Field(str, is_secret=True),
    "authorized_key": Field(Any, is_secret=True),
    # Of the yandex provider's connections.
    "service_account_json": Field(Any, is_secret=True),
    "service_account_json_path": Field(str),
    "oauth": Field(str, is_secret=True),
    "endpoint": Field(str),
    "public_ssh_key": Field(str),
}
_IN_FORM = {name: one for name, one in FIELDS.items() if one.label}

#: How the other fields of the form look.
_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["login", "schema", "port"],
    "relabeling": {"host": "Emulator URL", "password": "API key or authorized key (required)"},
    "placeholders": {
        "host": "Leave empty to use the real service",
        "password": "AQVN…, or the JSON of an authorized key",
    },
}

#: Options of Airflow's configuration.
_OPTIONS: dict[str, dict[str, str | None]] = {
    "archive": {
        "description": "Folder for submissions and raw answers, if neither the operator nor the connection names one: "
        "a path, or a URL that Airflow's object storage supports.",
        "example": "s3://my_conn@bucket/speechkit-archive",
    },
    "archive_mode": {
        "description": "Mode of the files of an archive on a disk, in octal. Users who may read the files may also "
        "enter new folders. Default: 0640, or less if the umask says so.",
        "example": "0660",
    },
    "triggerers": {
        "description": "Number of triggerers that run at the same time. Each takes an equal part of the status checks "
        "that a connection allows.",
        "type": "integer",
        "example": "2",
        "default": "1",
    },
}
#: What an option has unless it says otherwise.
_OPTION: dict[str, str | None] = {"version_added": "0.1.0", "type": "string", "default": None}


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
                "ui-field-behaviour": _BEHAVIOUR,
                "conn-fields": {
                    name: {"label": one.label, "description": one.description, "schema": one.schema}
                    for name, one in _IN_FORM.items()
                },
            }
        ],
        "config": {
            "speechkit": {
                "description": "Yandex SpeechKit's asynchronous recognition.",
                "options": {name: _OPTION | one for name, one in _OPTIONS.items()},
            }
        },
    }


def legacy_form_widgets() -> dict[str, Any]:
    """Return the form's fields as widgets, for Airflow before 3.2."""
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import optional

    kinds = {bool: BooleanField, int: IntegerField, float: IntegerField}
    widgets = {}
    for name, one in _IN_FORM.items():
        kind = PasswordField if one.is_secret else kinds.get(one.kind, StringField)
        widget = BS3PasswordFieldWidget() if one.is_secret else BS3TextFieldWidget()
        look = {} if kind is BooleanField else {"widget": widget, "validators": [optional()]}
        widgets[name] = kind(label=lazy_gettext(one.label), description=one.description, **look)
    return widgets


def legacy_field_behaviour() -> dict[str, Any]:
    """Return how the form looks, for Airflow before 3.2."""
    return {name.replace("-", "_"): value for name, value in _BEHAVIOUR.items()}
