"""API operations of cloud services: each example is a sentence of documentation, and a class is a service."""

from __future__ import annotations

import html
import re
from collections import defaultdict

from nas_meta.tasks.packaged_models import package
from nas_meta.tasks.source import Classes, TaskSource

TAG = re.compile(r"<[^>]+>")
SENTENCE_END = re.compile(r"(?<=[.!?])\s")


def first_sentence(documentation: str) -> str:
    """Return the first sentence of an HTML fragment as plain text."""
    plain = " ".join(html.unescape(TAG.sub(" ", documentation)).split())
    return SENTENCE_END.split(plain, maxsplit=1)[0]


class Botocore(TaskSource):
    """First sentences about API operations; classes are services (offline, from the package botocore)."""

    def read(self) -> Classes:
        loader = package("botocore.loaders", "the task source 'botocore'").create_loader()
        classes: dict[str, list[str]] = defaultdict(list)
        for service in loader.list_available_services("service-2"):
            operations = loader.load_service_model(service, "service-2")["operations"]
            for name, operation in operations.items():
                # Every service has operations for tags, whose sentences do not identify the service.
                if "tag" in name.lower() or not operation.get("documentation"):
                    continue
                classes[service].append(first_sentence(operation["documentation"]))
        return classes
