"""Prometheus metrics: what every process counts (`slots`), and what the store itself says (`figures`).

`families` names all metrics, `requests` counts on the path of requests, `text` writes the exposition formats, `page`
answers `GET /-/metrics`. Every metric is explained in docs/metrics.md.
"""
