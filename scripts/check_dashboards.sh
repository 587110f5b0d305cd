#!/usr/bin/env bash
# Check the JSON of the dashboards against Grafana's own types; needs npm.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=.dashboard-check
mkdir -p "$folder"
{
  echo 'import type {Dashboard} from "@grafana/schema";'
  echo '// the values of an enum are written as text in JSON'
  echo 'type Written<T> = T extends string ? `${T}` : T extends object ? {[K in keyof T]: Written<T[K]>} : T;'
  echo 'export const dashboards: Written<Dashboard>[] = ['
  for file in deployments/grafana/dashboards/*.json; do cat "$file"; echo ','; done
  echo '];'
} > "$folder/check.ts"
cd "$folder"
echo "{\"private\": true}" > package.json
npm install --no-audit --no-fund --silent typescript@5 @grafana/schema@13
npx tsc --noEmit --strict --skipLibCheck --moduleResolution bundler --module esnext --target es2022 check.ts
echo "$(ls ../deployments/grafana/dashboards/*.json | wc -l) dashboards have the types of Grafana's schema"
