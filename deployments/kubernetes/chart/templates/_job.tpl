{{- /* Base job template of the work pool: one isolated Job for each flow run. Prefect fills the inner placeholders. */ -}}
{{- define "clm.jobTemplate" -}}
job_configuration:
  command: {{ "{{ command }}" | quote }}
  labels: {{ "{{ labels }}" | quote }}
  name: {{ "{{ name }}" | quote }}
  namespace: {{ .Release.Namespace | quote }}
  stream_output: true
  pod_watch_timeout_seconds: 60
  # no variable names these: a run cannot change its environment, image or rights
  env:
    {{- include "clm.settings" . | nindent 4 }}
  job_manifest:
    apiVersion: batch/v1
    kind: Job
    metadata:
      namespace: {{ .Release.Namespace | quote }}
      generateName: {{ "{{ name }}-" | quote }}
      labels: {{ "{{ labels }}" | quote }}
    spec:
      # a run is never repeated by Kubernetes: the lease of its job decides
      backoffLimit: 0
      activeDeadlineSeconds: {{ .Values.runs.deadline | int }}
      ttlSecondsAfterFinished: {{ .Values.runs.ttl | int }}
      template:
        metadata:
          labels:
            {{- include "clm.selector" (dict "root" . "component" "run") | nindent 12 }}
        spec:
          # prefect-kubernetes refuses a manifest without these two here
          parallelism: 1
          completions: 1
          restartPolicy: Never
          {{- include "clm.runPod" . | nindent 10 }}
          {{- with .Values.runs.nodeSelector }}
          nodeSelector:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with .Values.runs.tolerations }}
          tolerations:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          containers:
            - name: prefect-job
              image: {{ include "clm.image" . | quote }}
              imagePullPolicy: {{ .Values.image.pullPolicy }}
              args: {{ "{{ command }}" | quote }}
              resources:
                requests:
                  {{- toYaml .Values.runs.resources.requests | nindent 18 }}
                  {{- if .Values.runs.gpus }}
                  {{ .Values.runs.gpuResource }}: {{ .Values.runs.gpus | quote }}
                  {{- end }}
                limits:
                  {{- toYaml .Values.runs.resources.limits | nindent 18 }}
                  {{- if .Values.runs.gpus }}
                  {{ .Values.runs.gpuResource }}: {{ .Values.runs.gpus | quote }}
                  {{- end }}
              securityContext:
                {{- include "clm.containerSecurity" . | nindent 16 }}
              volumeMounts:
                {{- include "clm.mounts" . | nindent 16 }}
          volumes:
            {{- include "clm.homeVolume" . | nindent 12 }}
            {{- include "clm.volumes" (dict "root" . "secrets" (list "database")) | nindent 12 }}
variables:
  type: object
  additionalProperties: false
  properties:
    command: {title: Command, type: string, enum: ["python -P -m clm_core.platform.run_engine"]}
    name: {title: Name, type: string}
    labels: {title: Labels, type: object, additionalProperties: {type: string}}
{{- end -}}
