#!/usr/bin/env bash
# Generate the Python code of protos/ into a directory (default: the SDK). Run by `make protos` and by a test.
#
# The generator has its own virtual environment: grpcio-tools 1.81.1 is the last version whose output works with
# protobuf 6 (pulumi requires protobuf < 7), and determines the SDK's minimum versions.
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
protoc=("$venv/bin/python" -m grpc_tools.protoc --proto_path=. --proto_path=third_party)
"${protoc[@]}" --python_out="$out" --mypy_out="quiet:$out" gorggle/v1/*.proto
# Only this file defines a service.
"${protoc[@]}" --grpc_python_out="$out" --mypy_grpc_out="quiet:$out" gorggle/v1/lip_reading.proto
