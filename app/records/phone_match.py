"""A person by their phone number or address, in all the spellings that carriers and people use."""

import re
from collections.abc import Collection
from typing import Final

import phonenumbers

from app.errors import FieldsInvalid

# What separates the digits of one number: spaces of any kind, dots, dashes, slashes, brackets.
_BETWEEN: Final = r"[\s.\-‐-―/()\u00a0]{0,3}"
_ONE: Final = rf"\+?{_BETWEEN}\d(?:{_BETWEEN}\d){{5,18}}"
# Digits within an id are no number.
_DIGITS: Final = re.compile(rf"(?<![A-Za-z0-9_])(?:{_ONE})(?![A-Za-z0-9_])")
_ADDRESS: Final = re.compile(r"(?:client|sip|sips|tel|whatsapp):[^\s<>\"';,?]+", re.IGNORECASE)
_SCHEME: Final = re.compile(r"^(client|sips?|tel|whatsapp):", re.IGNORECASE)
_USER: Final = re.compile(r"[A-Za-z0-9+._~%-]{1,128}(@[A-Za-z0-9.:\[\]-]{1,255})?")
# How the world dials out of a country, before a country code.
_OUT: Final = ("00", "011", "010", "0011", "810")
_LEAST_DIGITS: Final = 7


class Person:
    """Recognise one person, by an E.164 number or by an address such as `client:alice`.

    A number in national form is theirs only in a country where it would be: those of the
    businesses that it was seen with (`regions`), since another country may have the same digits.
    """

    def __init__(self, text: str) -> None:
        shown = text.strip()
        # 00 means + nearly everywhere; 011 begins numbers within some countries, too.
        self._parsed = _e164(re.sub(r"^00", "+", shown))
        self._address = ""
        if self._parsed is None:
            address = _SCHEME.sub("", shown)
            if not _SCHEME.match(shown) or not _USER.fullmatch(address):
                raise FieldsInvalid(
                    {
                        "number": "must be an international number such as +15005550006, or an "
                        "address such as client:alice or sip:alice@example.com"
                    }
                )
            self._address = address.casefold()

    @property
    def identity(self) -> str:
        """Return the one spelling of who this is."""
        if self._parsed is None:
            return self._address
        return phonenumbers.format_number(self._parsed, phonenumbers.PhoneNumberFormat.E164)

    def is_in(self, text: str, regions: Collection[str] = ()) -> bool:
        """Return whether a text names this person, alone or among other words."""
        if self._parsed is None:
            return any(self._is_address(address) for address in [text, *_ADDRESS.findall(text)])
        # By word as well: of two numbers side by side the digits would be one.
        return any(
            self._is_number(found, regions)
            for part in (text, *text.split())
            for found in _DIGITS.findall(part)
        )

    def _is_address(self, text: str) -> bool:
        shown = _SCHEME.sub("", text.strip()).casefold()
        return bool(_SCHEME.match(text.strip())) and shown in (
            self._address,
            # An address without a host is of any.
            f"{self._address}@{shown.partition('@')[2]}",
        )

    def _is_number(self, text: str, regions: Collection[str]) -> bool:
        digits = "".join(filter(str.isdecimal, text))
        digits = "".join(str(int(digit)) for digit in digits)
        if len(digits) < _LEAST_DIGITS or self._parsed is None:
            return False
        whole = self.identity[1:]
        if digits == whole or any(digits == out + whole for out in _OUT):
            return True
        if text.lstrip().startswith("+"):
            return False
        return any(self._is_national(digits, region) for region in regions)

    def _is_national(self, digits: str, region: str) -> bool:
        try:
            return phonenumbers.parse(digits, region) == self._parsed
        except phonenumbers.NumberParseException:
            return False


def region_of(number: str) -> str:
    """Return the country of an international number, ISO 3166-1; empty for anything else."""
    parsed = _e164(number)
    return (phonenumbers.region_code_for_number(parsed) or "") if parsed else ""


def _e164(text: str) -> phonenumbers.PhoneNumber | None:
    shown = re.sub(r"^(tel|whatsapp):", "", text, flags=re.IGNORECASE)
    if not shown.startswith("+") or not re.fullmatch(_ONE, shown):
        return None
    try:
        parsed = phonenumbers.parse(shown)
    except phonenumbers.NumberParseException:
        return None
    return parsed if phonenumbers.is_possible_number(parsed) else None
