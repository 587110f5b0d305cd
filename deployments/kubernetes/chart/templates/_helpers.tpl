{{- define "clm.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Labels of an object: (dict "root" $ "component" "api") */ -}}
{{- define "clm.labels" -}}
app.kubernetes.io/name: clm
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end -}}

{{- define "clm.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "clm.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "clm.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Settings of every process, as a mapping of names to values */ -}}
{{- define "clm.settings" -}}
CLM_HOME: /var/lib/clm/home
CLM_CONFIG: /etc/clm/clm.toml
CLM_DATABASE_URL_FILE: /run/secrets/clm/database-url
CLM_DEPLOY__WORK_POOL: {{ .Values.runs.workPool }}
CLM_DEPLOY__WORK_POOL_TYPE: kubernetes
CLM_STACK__CONCURRENT_RUNS: {{ .Values.worker.concurrentRuns | quote }}
PREFECT_HOME: /var/lib/clm/home/prefect
{{- with .Values.storage }}
{{- if .url }}
CLM_STORAGE__URL: {{ .url }}
{{- if .endpoint }}
CLM_STORAGE__ENDPOINT: {{ .endpoint }}
{{- end }}
{{- if .region }}
CLM_STORAGE__REGION: {{ .region }}
{{- end }}
{{- end }}
{{- end }}
{{- if include "clm.bucketKeys" . }}
CLM_STORAGE__ACCESS_KEY_FILE: /run/secrets/clm/s3-access-key
CLM_STORAGE__SECRET_KEY_FILE: /run/secrets/clm/s3-secret-key
{{- end }}
{{- if include "clm.trainsInJobs" . }}
CLM_TRAINING__WHERE: kubernetes
CLM_TRAINING__KUBERNETES__NAMESPACE: {{ .Release.Namespace }}
CLM_TRAINING__KUBERNETES__IMAGE: {{ include "clm.image" . | quote }}
CLM_TRAINING__KUBERNETES__PULL_POLICY: {{ .Values.image.pullPolicy }}
CLM_TRAINING__KUBERNETES__PULL_SECRETS: {{ .Values.image.pullSecrets | toJson | quote }}
CLM_TRAINING__KUBERNETES__CLAIM: {{ include "clm.claim" . }}
CLM_TRAINING__KUBERNETES__MOUNT_PATH: /var/lib/clm
CLM_TRAINING__KUBERNETES__MOUNTS: {{ .Values.training.mounts }}
CLM_TRAINING__KUBERNETES__REQUESTS: {{ .Values.training.resources.requests | toJson | quote }}
CLM_TRAINING__KUBERNETES__LIMITS: {{ .Values.training.resources.limits | toJson | quote }}
CLM_TRAINING__KUBERNETES__GPUS: {{ .Values.training.gpus | quote }}
CLM_TRAINING__KUBERNETES__GPU_RESOURCE: {{ .Values.runs.gpuResource }}
CLM_TRAINING__KUBERNETES__NODE_SELECTOR: {{ .Values.training.nodeSelector | toJson | quote }}
CLM_TRAINING__KUBERNETES__TOLERATIONS: {{ .Values.training.tolerations | toJson | quote }}
CLM_TRAINING__KUBERNETES__LABELS: {{ include "clm.selector" (dict "root" . "component" "training") | fromYaml | toJson | quote }}
CLM_TRAINING__KUBERNETES__SERVICE_ACCOUNT: {{ .Release.Name }}
CLM_TRAINING__KUBERNETES__START_SECONDS: {{ .Values.training.startSeconds | quote }}
CLM_TRAINING__KUBERNETES__KEEP_SECONDS: {{ .Values.runs.ttl | quote }}
{{- end }}
{{- end -}}

{{- /* Not empty where a training is a Job of its own */ -}}
{{- define "clm.trainsInJobs" -}}
{{- if eq .Values.training.where "kubernetes" -}}
true
{{- else if ne .Values.training.where "subprocess" -}}
{{- fail "training.where is subprocess or kubernetes" -}}
{{- end -}}
{{- end -}}

{{- /* Not empty where keys of the bucket are in the Secret */ -}}
{{- define "clm.bucketKeys" -}}
{{- if and .Values.storage.url .Values.secret.s3AccessKeyKey .Values.secret.s3SecretKeyKey -}}
true
{{- end -}}
{{- end -}}

{{- define "clm.claim" -}}
{{ .Values.home.existingClaim | default (printf "%s-home" .Release.Name) }}
{{- end -}}

{{- define "clm.env" -}}
{{- range $name, $value := include "clm.settings" . | fromYaml }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
- {name: PREFECT_API_URL, value: {{ printf "http://%s-prefect:4200/api" .Release.Name | quote }}}
- {name: PREFECT_API_AUTH_STRING_FILE, value: /run/secrets/clm/prefect-auth}
{{- end -}}

{{- define "clm.mounts" -}}
- {name: home, mountPath: /var/lib/clm}
- {name: tmp, mountPath: /tmp}
- {name: config, mountPath: /etc/clm, readOnly: true}
- {name: secrets, mountPath: /run/secrets/clm, readOnly: true}
{{- if (.root | default .).Values.vault.audience }}
- {name: vault, mountPath: /run/secrets/vault, readOnly: true}
{{- end }}
{{- end -}}

{{- /* Not empty where each pod has a home of its own */ -}}
{{- define "clm.homePerPod" -}}
{{- if .Values.home.perPod -}}
{{- if not .Values.storage.url -}}
{{- fail "home.perPod needs storage.url: the bars and versions of a pod would be gone with the pod" -}}
{{- end -}}
{{- if include "clm.trainsInJobs" . -}}
{{- fail "home.perPod and training.where kubernetes exclude each other: run and training share the home" -}}
{{- end -}}
true
{{- end -}}
{{- end -}}

{{- define "clm.homeVolume" -}}
- name: home
{{- if include "clm.homePerPod" . }}
  emptyDir: {sizeLimit: {{ .Values.home.size }}}
{{- else }}
  persistentVolumeClaim:
    claimName: {{ include "clm.claim" . }}
{{- end }}
{{- end -}}

{{- /* (dict "root" $ "keys" (list "databaseUrlKey" "prefectAuthKey")) */ -}}
{{- define "clm.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 2Gi}
- name: config
  configMap:
    name: {{ .root.Release.Name }}-config
- name: secrets
  secret:
    secretName: {{ .root.Values.secret.name }}
    # 0440: the group of the pod reads
    defaultMode: 288
    items:
    {{- if has "database" .secrets }}
      - {key: {{ .root.Values.secret.databaseUrlKey }}, path: database-url}
    {{- if include "clm.bucketKeys" .root }}
      - {key: {{ .root.Values.secret.s3AccessKeyKey }}, path: s3-access-key}
      - {key: {{ .root.Values.secret.s3SecretKeyKey }}, path: s3-secret-key}
    {{- end }}
    {{- end }}
    {{- if has "prefect" .secrets }}
      - {key: {{ .root.Values.secret.prefectAuthKey }}, path: prefect-auth}
    {{- end }}
{{- if and .root.Values.vault.audience (has "database" .secrets) }}
- name: vault
  projected:
    defaultMode: 288
    sources:
      - serviceAccountToken: {audience: {{ .root.Values.vault.audience }}, path: token, expirationSeconds: 3600}
{{- end }}
{{- end -}}

{{- /* Fields of every pod that has no use for the cluster's API. Without service links: Kubernetes would set
variables such as CLM_API_PORT for a Service clm-api, and unknown CLM_ variables are refused. */ -}}
{{- define "clm.pod" -}}
serviceAccountName: {{ .Release.Name }}
automountServiceAccountToken: false
{{ include "clm.podFields" . }}
{{- end -}}

{{- /* Fields of the pod of a run, which creates the Job of its training where that is chosen. */ -}}
{{- define "clm.runPod" -}}
{{- if include "clm.trainsInJobs" . -}}
serviceAccountName: {{ .Release.Name }}-run
automountServiceAccountToken: true
{{ include "clm.podFields" . }}
{{- else -}}
{{ include "clm.pod" . }}
{{- end -}}
{{- end -}}

{{- define "clm.podFields" -}}
enableServiceLinks: false
securityContext:
  {{- include "clm.podSecurity" . | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* A server with one port: (dict "root" $ "component" "api" "port" 8000 "values" .Values.api "env" list "live" "/livez" "ready" "/readyz") */ -}}
{{- define "clm.server" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .root.Release.Name }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "clm.labels" . | nindent 4 }}
spec:
  replicas: {{ .values.replicas | default 1 }}
  # an older release must not run beside a newer: both would use one database
  strategy: {type: Recreate}
  selector:
    matchLabels:
      {{- include "clm.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "clm.labels" . | nindent 8 }}
      annotations:
        checksum/settings: {{ .root.Values.settings | sha256sum }}
    spec:
      {{- include "clm.pod" .root | nindent 6 }}
      terminationGracePeriodSeconds: 30
      containers:
        - name: {{ .component }}
          image: {{ include "clm.image" .root | quote }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: [{{ .component }}]
          env:
            {{- include "clm.env" .root | nindent 12 }}
            {{- with .env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - {name: http, containerPort: {{ .port }}}
          # the Host header is checked: the address of a pod is none of the names
          startupProbe:
            httpGet: {path: {{ .live }}, port: http, httpHeaders: [{name: Host, value: "localhost:{{ .port }}"}]}
            periodSeconds: 5
            timeoutSeconds: 4
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: {{ .live }}, port: http, httpHeaders: [{name: Host, value: "localhost:{{ .port }}"}]}
            periodSeconds: 20
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: {{ .ready }}, port: http, httpHeaders: [{name: Host, value: "localhost:{{ .port }}"}]}
            periodSeconds: 10
            timeoutSeconds: 5
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          securityContext:
            {{- include "clm.containerSecurity" . | nindent 12 }}
          volumeMounts:
            {{- include "clm.mounts" . | nindent 12 }}
      volumes:
        {{- include "clm.homeVolume" .root | nindent 8 }}
        {{- include "clm.volumes" (dict "root" .root "secrets" (list "database" "prefect")) | nindent 8 }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .root.Release.Name }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "clm.labels" . | nindent 4 }}
spec:
  selector:
    {{- include "clm.selector" . | nindent 4 }}
  ports:
    - {name: http, port: {{ .port }}, targetPort: http}
{{- end -}}

{{- /* A Job that runs once: (dict "root" $ "component" "migrate" "hooks" "..." "weight" "0" "env" list) */ -}}
{{- define "clm.task" -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .root.Release.Name }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "clm.labels" . | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .hooks }}
    helm.sh/hook-weight: {{ .weight | quote }}
    helm.sh/hook-delete-policy: before-hook-creation
spec:
  backoffLimit: 10
  activeDeadlineSeconds: 1800
  template:
    metadata:
      labels:
        {{- include "clm.labels" . | nindent 8 }}
    spec:
      {{- include "clm.pod" .root | nindent 6 }}
      restartPolicy: Never
      containers:
        - name: {{ .component }}
          image: {{ include "clm.image" .root | quote }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: [{{ .component }}]
          env:
            {{- include "clm.env" .root | nindent 12 }}
            {{- with .env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          resources:
            {{- toYaml .root.Values.tasks.resources | nindent 12 }}
          securityContext:
            {{- include "clm.containerSecurity" . | nindent 12 }}
          volumeMounts:
            {{- include "clm.mounts" . | nindent 12 }}
      volumes:
        {{- include "clm.homeVolume" .root | nindent 8 }}
        {{- include "clm.volumes" (dict "root" .root "secrets" (list "database" "prefect")) | nindent 8 }}
{{- end -}}

{{- /* A worker, which creates Jobs for the runs of a queue: (dict "root" $ "component" "worker") */ -}}
{{- define "clm.worker" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .root.Release.Name }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "clm.labels" . | nindent 4 }}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector:
    matchLabels:
      {{- include "clm.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "clm.labels" . | nindent 8 }}
      annotations:
        checksum/settings: {{ .root.Values.settings | sha256sum }}
    spec:
      serviceAccountName: {{ .root.Release.Name }}-worker
      automountServiceAccountToken: true
      enableServiceLinks: false
      securityContext:
        {{- include "clm.podSecurity" . | nindent 8 }}
      {{- with .root.Values.image.pullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      terminationGracePeriodSeconds: 30
      containers:
        - name: {{ .component }}
          image: {{ include "clm.image" .root | quote }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: [{{ .component }}]
          env:
            - {name: CLM_CONFIG, value: /etc/clm/clm.toml}
            - {name: CLM_DEPLOY__WORK_POOL, value: {{ .root.Values.runs.workPool | quote }}}
            - {name: CLM_DEPLOY__WORK_POOL_TYPE, value: kubernetes}
            - {name: CLM_STACK__CONCURRENT_RUNS, value: {{ .root.Values.worker.concurrentRuns | quote }}}
            - {name: PREFECT_HOME, value: /tmp/prefect}
            - {name: PREFECT_API_URL, value: {{ printf "http://%s-prefect:4200/api" .root.Release.Name | quote }}}
            - {name: PREFECT_API_AUTH_STRING_FILE, value: /run/secrets/clm/prefect-auth}
            - {name: PREFECT_INTEGRATIONS_KUBERNETES_CLUSTER_UID, value: {{ printf "%s-%s" .root.Release.Namespace .root.Release.Name | quote }}}
            - {name: PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES, value: {{ .root.Release.Namespace | quote }}}
            # the password stands in no Job: the worker refers to the Secret
            - {name: PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME, value: {{ .root.Values.secret.name | quote }}}
            - {name: PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_KEY, value: {{ .root.Values.secret.prefectAuthKey | quote }}}
          ports:
            - {name: health, containerPort: 8080}
          startupProbe:
            httpGet: {path: /health, port: health}
            periodSeconds: 5
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /health, port: health}
            periodSeconds: 20
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /health, port: health}
            periodSeconds: 10
            timeoutSeconds: 5
          resources:
            {{- toYaml .root.Values.worker.resources | nindent 12 }}
          securityContext:
            {{- include "clm.containerSecurity" . | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: tmp, mountPath: /var/lib/clm, subPath: clm}
            - {name: config, mountPath: /etc/clm, readOnly: true}
            - {name: secrets, mountPath: /run/secrets/clm, readOnly: true}
      volumes:
        {{- include "clm.volumes" (dict "root" .root "secrets" (list "prefect")) | nindent 8 }}
{{- end -}}

{{- /* An account that may create Jobs: (dict "root" $ "component" "worker" "jobs" (list "create") "seen" (list "pods") "look" (list "get")) */ -}}
{{- define "clm.jobAccount" -}}
{{- $name := printf "%s-%s" .root.Release.Name .component -}}
{{- $labels := include "clm.labels" (dict "root" .root "component" .component) -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- $labels | nindent 4 }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- $labels | nindent 4 }}
rules:
  - apiGroups: [batch]
    resources: [jobs]
    verbs: {{ toJson .jobs }}
  - apiGroups: [""]
    resources: {{ toJson .seen }}
    verbs: {{ toJson .look }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- $labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ .root.Release.Namespace }}
{{- end -}}
