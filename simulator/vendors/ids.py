"""Identifiers that look like the vendors' and can be read back, so that no table of them is needed."""

import string
from uuid import UUID

DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
# Odd numbers have an inverse modulo a power of two, so multiplying by one shuffles without losing anything.
SHUFFLE = 0x5851F42D4C957F2D14057B7EF767814F


def shuffled(number: int, bits: int) -> int:
    """Another number of so many bits; `sorted_out` gives the first one back."""
    return (number * SHUFFLE + 1) % (1 << bits)


def sorted_out(number: int, bits: int) -> int:
    """What was shuffled."""
    size = 1 << bits
    return ((number - 1) * pow(SHUFFLE, -1, size)) % size


def written(number: int, width: int, base: int = 62) -> str:
    """In digits, capitals and, above base 36, small letters."""
    made = ""
    for _ in range(width):
        number, digit = divmod(number, base)
        made = DIGITS[digit] + made
    return made


def read(text: str, base: int = 62) -> int | None:
    """What was written, None where it was not."""
    number = 0
    for letter in text:
        digit = DIGITS.find(letter)
        if not 0 <= digit < base:
            return None
        number = number * base + digit
    return number


def uuid(*numbers: int) -> str:
    """One that is always the same for these numbers."""
    joined = 0
    for number in numbers:
        joined = (joined << 24) + number
    return str(UUID(int=shuffled(joined, 128), version=4))
