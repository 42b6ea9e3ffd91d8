#!/bin/bash
# Set up a new instance as a server: packages, model, certificates, services. User data runs it once, as root.
#
# All files come from the stack's buckets and secrets, none from the internet. If a step fails, the script logs the reason
# to the server's log group and abandons the launch, so that Auto Scaling starts another instance.
#
# GORGGLE_ROOT is prepended to every path (for tests, which run the script as an ordinary user).
set -euo pipefail

root="${GORGGLE_ROOT:-}"
bundle="$root/opt/gorggle/bundle"
venv="$root/opt/gorggle/venv"
# The AMI's Python, with a torch build for its driver.
image_python="${GORGGLE_IMAGE_PYTHON:-/opt/pytorch/bin/python}"
device="${GORGGLE_DEVICE:-cuda}"
settings="$root/etc/gorggle"
certificates="$root/run/gorggle-tls"
step="reading its environment"

abandon() {
    local line="$1"
    local what="bootstrap.sh failed while $step (line $line); abandoning the launch"
    echo "$what" >&2
    local token instance
    token=$(curl -sf -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" \
        "${GORGGLE_IMDS_URL:-http://169.254.169.254}/latest/api/token") || exit 1
    instance=$(curl -sf -H "X-aws-ec2-metadata-token: $token" \
        "${GORGGLE_IMDS_URL:-http://169.254.169.254}/latest/meta-data/instance-id") || exit 1
    aws logs create-log-stream --log-group-name "$GORGGLE_LOG_GROUP" --log-stream-name "$instance" || true
    aws logs put-log-events --log-group-name "$GORGGLE_LOG_GROUP" --log-stream-name "$instance" \
        --log-events "timestamp=$(date +%s)000,message='{\"level\": \"ERROR\", \"message\": \"$what\"}'" || true
    aws autoscaling complete-lifecycle-action --auto-scaling-group-name "$GORGGLE_FLEET" \
        --lifecycle-hook-name "$GORGGLE_LAUNCH_HOOK" --instance-id "$instance" \
        --lifecycle-action-result ABANDON || true
    exit 1
}
trap 'abandon $LINENO' ERR

for name in FLEET LAUNCH_HOOK TERMINATE_HOOK CERTIFICATE_SECRET METRICS_NAMESPACE LOG_GROUP SERVER_PORT \
    HTTP_PORT STREAMS DRAIN_S LOG_LEVEL; do
    variable="GORGGLE_$name"
    if [ -z "${!variable:-}" ]; then
        step="reading its environment: $variable is not set"
        false
    fi
done

step="creating the server's user and folders"
if [ "$(id -u)" -eq 0 ]; then
    id gorggle >/dev/null 2>&1 || useradd --system --no-create-home --shell /sbin/nologin gorggle
fi
mkdir -p "$settings" "$certificates" "$root/var/lib/gorggle" "$root/etc/systemd/system"

step="installing the packages"
"$image_python" -m venv "$venv"
python="$venv/bin/python"
# The AMI's packages are searched last: they provide torch, the lock everything else. (--system-site-packages would not
# work: a virtual environment of a virtual environment sees the system's packages, not its parent's.)
image_packages=$("$image_python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
own_packages=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "$image_packages" >"$own_packages/zz-image.pth"
install=("$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps)
"${install[@]}" --find-links "$bundle/wheels" --require-hashes --requirement "$bundle/server.lock"
"${install[@]}" "$bundle"/own/*.whl

step="checking the $device device"
"$python" - "$device" <<'PYTHON'
import sys

import torch

version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
if version < (2, 10):
    sys.exit(f"the AMI has torch {torch.__version__}; the server needs 2.10 or newer: change gpuAmiParameter")
if sys.argv[1] == "cuda" and not torch.cuda.is_available():
    sys.exit("torch finds no GPU: the AMI's driver does not support the instance type")
PYTHON

models="{}"
default_model=""
if [ -n "${GORGGLE_MODEL_URI:-}" ]; then
    step="downloading the model $GORGGLE_MODEL_URI"
    model="$root/var/lib/gorggle/model.safetensors"
    aws s3 cp --only-show-errors "$GORGGLE_MODEL_URI" "$model"
    default_model=$(basename "$GORGGLE_MODEL_URI" .safetensors)
    models="{\"$default_model\": \"$model\"}"
fi

step="writing the configuration of the services"
dtype=float32
[ "$device" = cuda ] && dtype=bfloat16
cat >"$settings/server.env" <<SETTINGS
GORGGLE_LISTEN=${GORGGLE_LISTEN_HOST:-0.0.0.0}:$GORGGLE_SERVER_PORT
GORGGLE_HTTP_LISTEN=${GORGGLE_LISTEN_HOST:-0.0.0.0}:$GORGGLE_HTTP_PORT
GORGGLE_TLS_CERTIFICATE=$certificates/certificate.pem
GORGGLE_TLS_KEY=$certificates/key.pem
GORGGLE_TLS_CLIENT_CA=$certificates/ca.pem
GORGGLE_DEVICE=$device
GORGGLE_DTYPE=$dtype
GORGGLE_MAX_STREAMS=$GORGGLE_STREAMS
GORGGLE_SHUTDOWN_GRACE_PERIOD_S=$GORGGLE_DRAIN_S
GORGGLE_LANDMARK_MODEL_PATH=$bundle/models/landmarks.dat
GORGGLE_MODELS=$models
GORGGLE_DEFAULT_MODEL=$default_model
LOG_LEVEL=$GORGGLE_LOG_LEVEL
SETTINGS
cat >"$settings/agent.env" <<SETTINGS
AWS_DEFAULT_REGION=$AWS_DEFAULT_REGION
PYTHONPATH=$bundle
FLEET=$GORGGLE_FLEET
LAUNCH_HOOK=$GORGGLE_LAUNCH_HOOK
TERMINATE_HOOK=$GORGGLE_TERMINATE_HOOK
CERTIFICATE_SECRET=$GORGGLE_CERTIFICATE_SECRET
CERTIFICATE_FOLDER=$certificates
METRICS_NAMESPACE=$GORGGLE_METRICS_NAMESPACE
LOG_GROUP=$GORGGLE_LOG_GROUP
METRICS_URL=http://127.0.0.1:$GORGGLE_HTTP_PORT
IMDS_URL=${GORGGLE_IMDS_URL:-http://169.254.169.254}
JOURNAL_CURSOR_FILE=$root/var/lib/gorggle/journal.cursor
SETTINGS
chmod 0600 "$settings/agent.env"

step="waiting for the certificates"
# The secret is empty until its first rotation, right after the deployment.
(
    set -a
    # shellcheck source=/dev/null
    . "$settings/agent.env"
    "$python" -m infrastructure.instance_agent certificates
)

step="starting the services"
for unit in gorggle.service gorggle-agent.service; do
    sed "s|/opt/gorggle|$root/opt/gorggle|g; s|/etc/gorggle|$settings|g; s|@DRAIN_S@|$((GORGGLE_DRAIN_S + 30))|" \
        "$bundle/infrastructure/instance_agent/$unit" >"$root/etc/systemd/system/$unit"
done
systemctl daemon-reload
systemctl enable --now gorggle.service gorggle-agent.service
echo "services started; the agent completes the launch hook when the server is ready"
