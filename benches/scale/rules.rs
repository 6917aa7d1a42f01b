//! The same judgement as somebody would write it in `PromQL`: how far each zone is from the others, service by service, in
//! standard deviations, of server errors, client errors, median and tail.

/// One window of a minute; zoneward looks at eight, from half a minute to ten minutes.
pub fn rules() -> String {
    let by = "destination_service_namespace,destination_service_name";
    let rate =
        |metric: &str, only: &str, more: &str| format!("sum by (locality,{by}{more}) (rate({metric}{{{only}}}[1m]))");
    let mut rules = String::from("groups:\n- name: zones\n  interval: 15s\n  rules:\n");
    let mut record = |name: &str, query: &str| rules.push_str(&format!("  - {{record: '{name}', expr: '{query}'}}\n"));
    for (vantage, reporter) in [("server", "destination"), ("client", "source")] {
        let all = format!("reporter=\"{reporter}\"");
        record(&format!("zone:{vantage}_requests:rate1m"), &rate("istio_requests_total", &all, ""));
        let failed = format!("{all},response_code=~\"5..|0\"");
        record(&format!("zone:{vantage}_failures:rate1m"), &rate("istio_requests_total", &failed, ""));
        let ratio = format!("zone:{vantage}_failures:rate1m / zone:{vantage}_requests:rate1m");
        record(&format!("zone:{vantage}_errors:ratio1m"), &ratio);
    }
    let well = "reporter=\"destination\",response_code=~\"[123]..\"";
    record("zone:buckets:rate1m", &rate("istio_request_duration_milliseconds_bucket", well, ",le"));
    record("zone:latency:p50", "histogram_quantile(0.5, zone:buckets:rate1m)");
    record("zone:latency:p99", "histogram_quantile(0.99, zone:buckets:rate1m)");
    for (alert, series, floor) in [
        ("ServerErrors", "zone:server_errors:ratio1m", "0.003"),
        ("ClientErrors", "zone:client_errors:ratio1m", "0.003"),
        ("Median", "zone:latency:p50", "1"),
        ("Tail", "zone:latency:p99", "1"),
    ] {
        let mean = format!("on ({by}) group_left () avg by ({by}) ({series})");
        let deviation = format!("on ({by}) group_left () stddev by ({by}) ({series})");
        let query = format!("({series} - {mean}) / {deviation} > 1.4 and {series} > {floor}");
        rules.push_str(&format!("  - {{alert: '{alert}', expr: '{query}', for: 1m}}\n"));
    }
    rules
}
