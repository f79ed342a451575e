{{/*
Agents find the operator by these names, and the cluster's objects have them too. So there is one installation per cluster,
and a second one is refused by Helm, whatever its release is called.
*/}}
{{- define "maplatency.operator" -}}maplatency-operator{{- end }}
{{- define "maplatency.gateway" -}}maplatency-gateway{{- end }}
{{- define "maplatency.agent" -}}maplatency-agent{{- end }}
{{- define "maplatency.test" -}}maplatency-test{{- end }}

{{/* Labels by which pods are found; they never change. Called with the component. */}}
{{- define "maplatency.selector" -}}
app.kubernetes.io/name: maplatency
app.kubernetes.io/instance: maplatency
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* Labels of an object. Called with (list $ component). */}}
{{- define "maplatency.labels" -}}
{{- $root := index . 0 -}}
{{ include "maplatency.selector" (index . 1) }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: maplatency
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name ($root.Chart.Version | replace "+" "_") }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An image. Called with (list $ image). */}}
{{- define "maplatency.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- with $root.Values.image.registry }}{{ . }}/{{ end -}}
{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* What a container needs that needs nothing: the level restricted of Pod Security. */}}
{{- define "maplatency.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- with .Values.operator.runAsUser }}
runAsUser: {{ int64 . }}
{{- end }}
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "maplatency.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The operator refuses a field that it does not know. */}}
{{- define "maplatency.agentSettings" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
imagePullSecrets: {{ toJson .Values.image.pullSecrets }}
{{- with .Values.priorityClass.name }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.agent }}
podAnnotations: {{ toJson .podAnnotations }}
nodes: {{ toJson .nodes }}
tolerations: {{ toJson .tolerations }}
resources: {{ toJson .resources }}
maxUnavailable: {{ .maxUnavailable }}
{{- with .seLinuxType }}
seLinuxType: {{ . }}
{{- end }}
env:
  MAPLATENCY_MEMORY_BUDGET: {{ .memoryBudget | quote }}
  MAPLATENCY_CPU_BUDGET: {{ .cpuBudget | quote }}
  MAPLATENCY_LOG_FORMAT: {{ .logFormat | quote }}
  RUST_LOG: {{ .logFilter | quote }}
{{- end }}
{{- end }}
