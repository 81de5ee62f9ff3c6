"""What is kept of calls as a whole: found, exported and erased, for a business or a person."""

from dataclasses import dataclass

from app.records.business_erasure import BusinessErasure
from app.records.business_export import BusinessExport
from app.records.persons import Persons


@dataclass(frozen=True, slots=True)
class Records:
    """What the API, the pages and the commands call."""

    erasure: BusinessErasure
    export: BusinessExport
    persons: Persons
