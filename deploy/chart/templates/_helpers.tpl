{{- /* Objects of a file of files/, as `items`. The namespace is the release's. */ -}}
{{- define "zoneward.objects" -}}
{{- $text := .root.Files.Get (printf "files/%s" .file) | replace "namespace: zoneward" (printf "namespace: %s" .root.Release.Namespace) | replace "serviceaccount:zoneward:" (printf "serviceaccount:%s:" .root.Release.Namespace) -}}
{{- if .commented -}}
{{- $text = regexReplaceAll "(?m)^# ?" (regexSplit "managed-by: zoneward\\.\n" $text 2 | last) "" -}}
{{- end -}}
{{- $items := list -}}
{{- range regexSplit "(?m)^---$" $text -1 -}}
{{- with fromYaml . -}}{{- $items = append $items . -}}{{- end -}}
{{- end -}}
{{- dict "items" $items | toYaml -}}
{{- end -}}

{{- /* What all pods have in common, into a pod template in place. */ -}}
{{- define "zoneward.pod" -}}
{{- $values := .root.Values -}}
{{- $metadata := .template.metadata -}}
{{- with $values.podLabels -}}{{- $_ := set $metadata "labels" (merge . (default dict $metadata.labels)) -}}{{- end -}}
{{- with $values.podAnnotations -}}{{- $_ := set $metadata "annotations" (merge . (default dict $metadata.annotations)) -}}{{- end -}}
{{- $spec := .template.spec -}}
{{- $container := first $spec.containers -}}
{{- $_ := set $container "image" (printf "%s:%s" $values.image.repository (default .root.Chart.AppVersion $values.image.tag)) -}}
{{- if ne $values.image.pullPolicy "IfNotPresent" -}}{{- $_ := set $container "imagePullPolicy" $values.image.pullPolicy -}}{{- end -}}
{{- with $values.imagePullSecrets -}}{{- $_ := set $spec "imagePullSecrets" . -}}{{- end -}}
{{- with $values.env -}}{{- $_ := set $container "env" (concat (default list $container.env) .) -}}{{- end -}}
{{- with $values.volumes -}}{{- $_ := set $spec "volumes" (concat $spec.volumes .) -}}{{- end -}}
{{- with $values.volumeMounts -}}{{- $_ := set $container "volumeMounts" (concat $container.volumeMounts .) -}}{{- end -}}
{{- with $values.podSpec -}}{{- $_ := mergeOverwrite $spec (deepCopy .) -}}{{- end -}}
{{- end -}}

{{- define "zoneward.config" -}}
{{- $config := .Files.Get "files/config.yaml" | fromYaml -}}
{{- $config = mergeOverwrite $config (fromYaml .Values.configFile) (deepCopy .Values.config) -}}
{{- /* The Lease is where the roles are. */ -}}
{{- if ne .Release.Namespace "zoneward" -}}
{{- $_ := set $config "kubernetes" (merge (dict "namespace" .Release.Namespace) (default dict $config.kubernetes)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "zoneward.monitored" -}}
{{- if or (eq (toString .Values.monitoring) "true") (and (eq (toString .Values.monitoring) "auto") (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}true{{- end -}}
{{- end -}}
