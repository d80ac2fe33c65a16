#!/bin/bash
# Takes down what up-ozone.sh brought up, and its data.
. "$(dirname "$0")/lib-ozone.sh"
stop_client
stop_pids
rm -rf "$DATA"
