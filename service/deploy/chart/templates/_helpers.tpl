{{- define "annotator.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "annotator.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "annotator.labels" -}}
{{ include "annotator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- /* The Secret with the keys; empty where tokens alone are accepted. */ -}}
{{- define "annotator.keys" -}}
{{- if .Values.keys.existingSecret -}}
{{- .Values.keys.existingSecret -}}
{{- else if .Values.keys.lines -}}
{{- include "annotator.name" . }}-keys
{{- else if not .Values.oidc.issuer -}}
{{- fail "The service needs API keys: set keys.existingSecret, or keys.lines, or oidc." -}}
{{- end -}}
{{- end -}}

{{- /* Whether the pod has to ask others: the identity provider, or the collector of spans. */ -}}
{{- define "annotator.asks" -}}
{{- if or .Values.oidc.issuer .Values.otel.endpoint }}yes{{ end -}}
{{- end -}}

{{- define "annotator.claim" -}}
{{- .Values.index.existingClaim | default (printf "%s-index" (include "annotator.name" .)) -}}
{{- end -}}
