"""Which settings and parameters strangers may give with a query."""

import math
import re
from collections.abc import Mapping

from streams.archive.gate import ErrorCode, RefusedError

_PARAM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_FREE_SETTINGS = frozenset({
    "aggregate_functions_null_for_empty", "bool_false_representation", "bool_true_representation",
    "cast_string_to_dynamic_use_inference", "date_time_input_format", "date_time_output_format", "enable_analyzer",
    "extremes", "final", "format_csv_delimiter", "format_csv_null_representation", "format_tsv_null_representation",
    "group_by_overflow_mode", "group_by_use_nulls", "join_use_nulls", "limit",
    "low_cardinality_allow_in_native_format", "max_block_size", "max_bytes_to_read", "max_result_rows",
    "max_rows_to_group_by", "max_rows_to_read", "offset", "optimize_read_in_order", "prefer_column_name_to_alias",
    "read_overflow_mode", "result_overflow_mode", "session_timezone", "transform_null_in", "union_default_mode",
    "use_uncompressed_cache",
})  # fmt: skip
# Only inserts read them; a JDBC driver sends them with every statement. They are dropped.
_INSERTS_SETTINGS = frozenset({"async_insert", "wait_for_async_insert"})
_OUTPUT_SETTING = re.compile(r"output_format_[a-z0-9_]+")
_WRITES_A_FILE = "output_format_schema"


def admit_settings(asked: Mapping[str, str], limits: Mapping[str, int]) -> dict[str, str]:
    """The settings to run with: `limits`, lowered where `asked` says less, and harmless ones. Raises RefusedError."""
    chosen = {name: str(limit) for name, limit in limits.items()}
    for name, value in asked.items():
        if name in limits:
            chosen[name] = str(_lower(name, value, limits[name]))
        elif name in _FREE_SETTINGS or (_OUTPUT_SETTING.fullmatch(name) and name != _WRITES_A_FILE):
            chosen[name] = value
        elif name in _INSERTS_SETTINGS:
            continue
        elif name == "readonly":
            if value not in {"1", "2"}:
                raise RefusedError(
                    ErrorCode.READONLY, f"Cannot modify 'readonly' setting to {value}: this endpoint is read-only"
                )
        else:
            raise RefusedError(
                ErrorCode.SETTING_CONSTRAINT_VIOLATION, f"Setting {name} should not be changed on this endpoint"
            )
    return chosen


def admit_params(asked: Mapping[str, str]) -> dict[str, str]:
    """Query parameters by their bare names. Raises RefusedError for a name that is none."""
    for name in asked:
        if not _PARAM_NAME.fullmatch(name):
            raise RefusedError(
                ErrorCode.BAD_ARGUMENTS, f"Query parameter {name!r}: expected letters, digits and underscores"
            )
    return dict(asked)


def _lower(name: str, value: str, limit: int) -> int:
    """Zero means without limit to the engine, here the most that one may have."""
    try:
        asked = math.ceil(float(value))
    except (ValueError, OverflowError):
        raise RefusedError(
            ErrorCode.BAD_ARGUMENTS, f"Setting {name} = {value!r}: expected a number up to {limit}"
        ) from None
    return min(asked, limit) if asked > 0 else limit
