"""Every cause that can be found, and every check, in the order in which they are made."""

from app.diagnosis.causes.calling import CALLING_CAUSES, CALLING_CHECKS
from app.diagnosis.causes.inside import INSIDE_CAUSES, INSIDE_CHECKS
from app.diagnosis.causes.reaching import REACHING_CAUSES, REACHING_CHECKS
from app.diagnosis.causes.twilio import TWILIO_CAUSES, TWILIO_CHECKS

CAUSES = {
    cause.id: cause for cause in (*INSIDE_CAUSES, *REACHING_CAUSES, *CALLING_CAUSES, *TWILIO_CAUSES)
}
# What each looks at, by its name.
CHECKS = {**INSIDE_CHECKS, **REACHING_CHECKS, **CALLING_CHECKS, **TWILIO_CHECKS}

__all__ = ["CAUSES", "CHECKS"]
