#!/usr/bin/env bash
# Check the chart and the files for kustomize with real tools; with --write, write the files for kustomize anew.
#   scripts/check_kubernetes.sh FOLDER [--write]     FOLDER: environment of scripts/deploy-check.txt
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(realpath "$1")
chart=deployments/kubernetes/chart
kustomize=deployments/kubernetes/kustomize
if [ ! -x "$tools/kubectl/kubectl" ]; then
  "$tools/bin/python" scripts/kubernetes_files.py unpack "$tools"
fi
export PATH="$tools/helm:$tools/kubectl:$tools/bin:$PATH"
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT

helm lint --strict "$chart"
helm template clm "$chart" --namespace clm > "$rendered/default.yaml"
for values in deployments/kubernetes/values/*.yaml; do
  helm template clm "$chart" --namespace clm --values "$values" > "$rendered/$(basename "$values")"
done
if [ "${2:-}" = --write ]; then
  python scripts/kubernetes_files.py write "$rendered/default.yaml" "$kustomize"
fi
for file in "$rendered"/*.yaml; do
  kubernetes-validate --strict --quiet "$file"
  python scripts/kubernetes_files.py job "$file" > "$rendered/job.yml"
  kubernetes-validate --strict --quiet "$rendered/job.yml"
  # CKV_K8S_38: the workers create Jobs. CKV_K8S_40: 999 is the user of PostgreSQL's image.
  # CKV_K8S_43: the value image.digest names the digest of an image that you have built.
  checkov --quiet --compact --skip-download --framework kubernetes --file "$file" \
    --skip-check CKV_K8S_38,CKV_K8S_40,CKV_K8S_43
done
kubectl kustomize "$kustomize" > "$rendered/kustomize.yml"
python scripts/kubernetes_files.py same "$rendered/default.yaml" "$rendered/kustomize.yml"
# CKV_DOCKER_7: the base image has a version, by the argument PYTHON_IMAGE
checkov --quiet --compact --skip-download --framework dockerfile --file deployments/docker/Dockerfile \
  --skip-check CKV_DOCKER_7
hadolint deployments/docker/Dockerfile
echo "$(ls "$rendered"/*.yaml | wc -l) sets of values are valid, kustomize gives the same, and no check of checkov fails"
