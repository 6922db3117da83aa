package alertmanager

import (
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Alert is one alert as Alertmanager's API, version 2, takes it.
type Alert struct {
	Labels       labels.Labels `json:"labels"`
	Annotations  labels.Labels `json:"annotations"`
	StartsAt     time.Time     `json:"startsAt,omitzero"`
	EndsAt       time.Time     `json:"endsAt,omitzero"`
	GeneratorURL string        `json:"generatorURL,omitempty"`
}
