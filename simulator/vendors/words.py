"""Plausible texts: titles, messages and names, always the same for the same number."""

from simulator.vendors.dataset import mixed

VERBS = ("Fix", "Speed up", "Document", "Remove", "Rework", "Test", "Translate", "Measure", "Rename", "Restore")
THINGS = ("the login page", "the export", "search", "the invoice total", "uploads", "the calendar", "the dark theme")
PLACES = ("on Safari", "for large teams", "after an upgrade", "with many tags", "in the mobile app", "behind a proxy")
FIRST = ("Ada", "Bela", "Chen", "Dina", "Emil", "Fatou", "Goran", "Hana", "Ines", "Jonas", "Kaja", "Luca")
LAST = ("Adler", "Brandt", "Costa", "Dimitrov", "Eklund", "Fischer", "Garcia", "Horvat", "Ito", "Jansen", "Kim")


def title(salt: int, number: int, revision: int = 0) -> str:
    """Of an issue; a revision shows."""
    chance = mixed(salt, number)
    made = f"{VERBS[chance % 10]} {THINGS[chance // 10 % 7]} {PLACES[chance // 70 % 6]}"
    return f"{made} (revision {revision})" if revision else made


def sentence(salt: int, number: int, revision: int = 0) -> str:
    """Of a comment or message."""
    return f"We should {title(salt, number).lower()}." + (f" Edited {revision} times." if revision else "")


def person(number: int) -> tuple[str, str]:
    """First and last name."""
    return FIRST[number % 12], LAST[number // 12 % 11]
