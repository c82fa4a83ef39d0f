"""Regular expressions of RE2: their time is linear in the text, so no stranger's text can make them hang."""

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

if TYPE_CHECKING:
    import re


def compiled(regex: str) -> "re.Pattern[str]":
    """A pattern of RE2. Raises ValueError."""
    import re2  # noqa: PLC0415 - 20 ms and 5 MB, only for those who have a regex

    options = re2.Options()
    options.log_errors = False
    try:
        pattern: re.Pattern[str] = re2.compile(regex, options)
    except re2.error as cause:
        raise ValueError(f"{cause}; expected a regular expression as RE2 has them") from cause
    return pattern


def _is_regex(text: str) -> str:
    compiled(text)
    return text


Text = Annotated[str, Field(min_length=1, max_length=4_096)]
Regex = Annotated[Text, AfterValidator(_is_regex)]
