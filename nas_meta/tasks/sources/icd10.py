"""ICD-10-CM: descriptions of diagnoses; a class is a block of codes."""

from __future__ import annotations

import re
from collections import defaultdict

from pydantic import Field

from nas_meta.tasks.packaged_models import package
from nas_meta.tasks.source import Classes, SourceOptions, TaskSource

# Seventh-character extensions turn one diagnosis into several near-duplicates.
ENCOUNTER = re.compile(
    r",\s*(initial|subsequent) encounter.*$|,\s*sequela$|,\s*(fetus \d|not applicable or unspecified|other fetus)$",
    re.IGNORECASE,
)


class ICD10Options(SourceOptions):
    """Options of the ICD-10-CM task source."""

    max_code_length: int = Field(
        4,
        ge=3,
        le=7,
        description="codes with more characters (without the dot) are left out; 4 is the harder set",
    )
    min_examples: int = Field(15, ge=2, description="classes with fewer distinct descriptions are left out")


class ICD10(TaskSource):
    """Descriptions of ICD-10-CM codes, classes are blocks (offline, from the package simple-icd-10-cm)."""

    Options = ICD10Options

    def read(self) -> Classes:
        cm = package("simple_icd_10_cm", "the task source 'icd10'")
        classes: dict[str, list[str]] = defaultdict(list)
        for code in cm.get_all_codes(False):
            if len(code) > self.options.max_code_length or cm.is_chapter_or_block(code):
                continue
            # A block may be one category alone; the outermost block is the class.
            block = next((a for a in cm.get_ancestors(code) if cm.is_block(a)), None)
            if block:
                classes[block].append(ENCOUNTER.sub("", cm.get_description(code)))
        return classes

    def spoken(self, name: str) -> str:
        """The block's description, without the range of codes behind it."""
        described = package("simple_icd_10_cm", "the task source 'icd10'").get_description(name)
        return described.removesuffix(f"({name})").strip()
