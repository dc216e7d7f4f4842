"""Diagnoses of ICD-10-CM: each example is the description of a code, and a class is a block of codes."""

from __future__ import annotations

import re
from collections import defaultdict

from pydantic import Field

from nas_meta.tasks.packaged_models import package
from nas_meta.tasks.source import Classes, SourceOptions, TaskSource

# Without this, the seventh character of a code would turn one diagnosis into several near-duplicates.
ENCOUNTER = re.compile(
    r",\s*(initial|subsequent) encounter.*$|,\s*sequela$|,\s*(fetus \d|not applicable or unspecified|other fetus)$",
    re.IGNORECASE,
)


class ICD10Options(SourceOptions):
    """Options of the task source ``icd10``."""

    max_code_length: int = Field(
        4,
        ge=3,
        le=7,
        description="codes with more characters, not counting the dot, are left out; 4 gives the harder tasks",
    )
    min_examples: int = Field(15, ge=2, description="classes with fewer distinct descriptions are left out")


class ICD10(TaskSource):
    """Descriptions of ICD-10-CM codes; classes are blocks (offline, from the package simple-icd-10-cm)."""

    Options = ICD10Options

    def read(self) -> Classes:
        cm = package("simple_icd_10_cm", "the task source 'icd10'")
        classes: dict[str, list[str]] = defaultdict(list)
        for code in cm.get_all_codes(False):
            if len(code) > self.options.max_code_length or cm.is_chapter_or_block(code):
                continue
            # Blocks are nested, and an inner one may be a single category: the class is the outermost block.
            block = next((a for a in cm.get_ancestors(code) if cm.is_block(a)), None)
            if block:
                classes[block].append(ENCOUNTER.sub("", cm.get_description(code)))
        return classes

    def spoken(self, name: str) -> str:
        """Return the description of a block without the range of codes at its end."""
        described = package("simple_icd_10_cm", "the task source 'icd10'").get_description(name)
        return described.removesuffix(f"({name})").strip()
