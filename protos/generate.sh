#!/usr/bin/env bash
# Write the Python of protos/ into the folder given (default: the SDK). Used by `make protos` and by a test.
#
# The generator lives in an environment of its own: grpcio-tools 1.81.1 is the last whose output protobuf 6 can load
# (pulumi refuses protobuf 7), and its version is the floor of the SDK's dependencies.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../clients/python}
venv=${GORGGLE_PROTOC_VENV:-$here/../.build/protoc}
stamp=$venv/grpcio-tools-1.81.1-mypy-protobuf-5.1.0
if [ ! -e "$stamp" ]; then
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "grpcio-tools==1.81.1" "mypy-protobuf==5.1.0"
  touch "$stamp"
fi
cd "$here"
export PATH="$venv/bin:$PATH"
"$venv/bin/python" -m grpc_tools.protoc --proto_path=. --python_out="$out" --mypy_out="quiet:$out" gorggle/v1/*.proto
# Only this file holds a service.
"$venv/bin/python" -m grpc_tools.protoc --proto_path=. --grpc_python_out="$out" --mypy_grpc_out="quiet:$out" gorggle/v1/lip_reading.proto
