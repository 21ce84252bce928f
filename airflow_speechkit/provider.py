"""What Airflow's provider manager reads: the connection type and its form, and the configuration's section."""

from __future__ import annotations

from typing import Any

from airflow_speechkit import __version__

_PASSWORD = {"type": ["string", "null"], "format": "password"}
_TEXT = {"type": ["string", "null"]}
_YES_NO = {"type": ["boolean", "null"]}
_RATE = {"type": ["integer", "null"], "minimum": 1}

#: The form's fields, what everybody needs first: name in the connection's extra -> (label, description, schema). A key
#: belongs in the password, which Airflow never shows: `api_key` and `authorized_key` are understood, but not offered.
CONN_FIELDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "archive": (
        "Archive (required)",
        "Folder for submissions and answers, for example s3://my-bucket/speechkit-archive. Leave it empty only if "
        "[speechkit] archive is set in Airflow's configuration.",
        _TEXT,
    ),
    "aws_conn_id": (
        "Bucket connection",
        "Id of the Amazon Web Services connection for the buckets. Default: aws_default.",
        _TEXT,
    ),
    "api_version": (
        "API version",
        "Used by tasks that do not set one.",
        {"type": ["string", "null"], "enum": ["v2", "v3"], "default": "v2"},
    ),
    "folder_id": ("Folder ID", "Sent to API v3 only. Default: the folder of the service account.", _TEXT),
    "authorized_key_path": (
        "Path of the authorized key",
        "Instead of a key above: a JSON file on the machines that run tasks and triggers.",
        _TEXT,
    ),
    "use_metadata": (
        "Service account of the virtual machine",
        "Instead of a key above: get tokens from the metadata service of the virtual machine.",
        _YES_NO,
    ),
    "iam_token": (
        "IAM token",
        "Instead of a key above, for a try: it expires after 12 hours at most and is not renewed.",
        _PASSWORD,
    ),
    "data_logging_enabled": (
        "Data logging",
        "Allow the service to keep your recordings. Default: it does not keep them.",
        _YES_NO,
    ),
    "submits_per_hour": ("Submissions per hour", "Quota of the folder. Default: 500.", _RATE),
    "checks_per_hour": ("Status checks per hour (v2)", "Limit for this Airflow. Default: 2000.", _RATE),
    "checks_per_second": ("Status checks per second (v3)", "Limit for this Airflow. Default: 4.", _RATE),
    "storage_host": (
        "Object Storage host",
        "Required with the emulator. Default: https://storage.yandexcloud.net.",
        _TEXT,
    ),
    "recognition_host": ("Recognition host (v2)", "Default: https://transcribe.api.cloud.yandex.net.", _TEXT),
    "recognition_v3_host": ("Recognition host (v3)", "Default: https://stt.api.cloud.yandex.net.", _TEXT),
    "operations_host": ("Operations host", "Default: https://operation.api.cloud.yandex.net.", _TEXT),
    "iam_host": ("IAM host", "Default: https://iam.api.cloud.yandex.net.", _TEXT),
    "metadata_host": ("Metadata host", "Default: http://169.254.169.254.", _TEXT),
    "ca_bundle": ("CA bundle", "Path of a file with the certificate authorities to trust.", _TEXT),
}

_HIDDEN = ["login", "schema", "port"]
_RELABELING = {"host": "Emulator URL", "password": "API key or authorized key (required)"}
_PLACEHOLDERS = {
    "host": "Leave empty to use the real service",
    "password": "AQVN…, or the JSON of an authorized key",
}


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
