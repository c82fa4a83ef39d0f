#!/usr/bin/env bash
# Asks a running fleetbeat with curl. Run it: bash curl.sh, or VIEWS=http://… SQL=http://… bash curl.sh
set -euo pipefail
views=${VIEWS:-http://127.0.0.1:8080}
sql=${SQL:-http://127.0.0.1:8123}

get() { curl --silent --show-error --fail-with-body "$@"; }
# A query travels as the body; values in {braces} come from param_… in the address.
ask() { get "$sql/$2" --data-binary "$1"; }

echo "# ready? 200 and true, or 503 and the reason"
get "$views/-/ready"

printf '\n\n# the newest seconds of one objective\n'
now_ms=$(date +%s000)
get "$views/api/v1/slos/checkout-latency/slices?from_ms=$((now_ms - 3000))&to_ms=$now_ms"

printf '\n\n# its minutes, as the archive keeps them; FINAL takes the newest version of each\n'
ask 'SELECT window_start, final, total, good, late FROM slo_windows FINAL
     WHERE slo = {slo:String} AND window_s = 60 ORDER BY window_start DESC LIMIT 3 FORMAT TSVWithNames' '?param_slo=checkout-latency'

printf '\n# what failed last\n'
ask 'SELECT ts, node_id, service, endpoint, status_code, error FROM probe_results
     WHERE not success ORDER BY ts DESC LIMIT 3 FORMAT TSVWithNames' ''

printf '\n# records that could not be used, by reason\n'
ask 'SELECT reason, count() AS records FROM dead_letters FINAL GROUP BY reason FORMAT TSVWithNames' ''

printf '\n# what the worker has counted, for Prometheus\n'
get "$views/metrics" | grep '^fleetbeat_rollup_[a-z_]*_total'
