"""Speech to rows: an Apache Airflow provider for Yandex SpeechKit's asynchronous recognition."""

__version__ = "0.1.0"
