"""Addresses as messages, logs and pages may show them."""

import re

NAME_AND_PASSWORD = re.compile(r"://[^\s/]*@")


def without_password(text: str) -> str:
    """The text without the user names and passwords of the addresses in it."""
    return NAME_AND_PASSWORD.sub("://", text)
