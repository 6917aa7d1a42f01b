//! A made-up mesh of any size, loaded into a real Prometheus: what Istio's proxies export, with full histograms, from both
//! vantages.

use std::time::Duration;

use jiff::Timestamp;

pub const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];
pub const SCRAPE_S: i64 = 15;
/// Istio's bucket edges, in milliseconds.
const EDGES: [&str; 20] = [
    "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000", "60000",
    "300000", "600000", "1800000", "3600000", "+Inf",
];
/// Shares of requests up to each edge.
const BELOW: [f64; 20] = [
    0.001, 0.02, 0.25, 0.55, 0.85, 0.94, 0.975, 0.99, 0.996, 0.9985, 0.9995, 0.9999, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
    1.0,
];
const REQUESTS_A_SCRAPE: u64 = 300;
/// One in so many fails.
const FAILS: u64 = 600;
/// Of one write, before more is added.
const WRITE_BYTES: usize = 2 << 20;
/// In-order samples may be so much older than the newest one.
const SLICE_S: i64 = 1800;

type Labels = Vec<(&'static str, String)>;

/// Writes all samples of a stretch. Returns how many series and samples these are.
pub async fn load(url: &str, services: usize, first: Timestamp, last: Timestamp) -> (usize, u64) {
    let client = reqwest::Client::builder().timeout(Duration::from_mins(2)).build().unwrap();
    let grid = |time: Timestamp| time.as_second().div_euclid(SCRAPE_S);
    let (begin, end) = (grid(first), grid(last));
    let (mut series, mut samples) = (0, 0);
    let mut from = begin;
    while from <= end {
        let to = (from + SLICE_S / SCRAPE_S - 1).min(end);
        let mut body = Vec::new();
        series = 0;
        for pod in 0..services * ZONES.len() {
            for (labels, counter) in of_pod(pod, services) {
                series += 1;
                samples += (to - from + 1) as u64;
                put_series(
                    &mut body,
                    &labels,
                    (from..=to).map(|nth| (nth, counter.at((nth - begin) as u64, pod as u64))),
                );
            }
            if body.len() > WRITE_BYTES {
                write(&client, url, &mut body).await;
            }
        }
        write(&client, url, &mut body).await;
        from = to + 1;
    }
    (series, samples)
}

/// What a series counts.
enum Counter {
    Up,
    Answered,
    Failed,
    Below(f64),
    Milliseconds,
}

impl Counter {
    /// After so many scrapes. It never falls.
    fn at(&self, scrapes: u64, pod: u64) -> f64 {
        let uneven = (scrapes.wrapping_mul(2_654_435_761) ^ pod.wrapping_mul(40_503)) >> 7;
        let all = (scrapes + 1) * REQUESTS_A_SCRAPE + uneven % (REQUESTS_A_SCRAPE / 4);
        let answered = all - all / FAILS;
        match self {
            Self::Up => 1.0,
            Self::Answered => answered as f64,
            Self::Failed => (all / FAILS + 1) as f64,
            Self::Below(share) => (answered as f64 * share).floor(),
            Self::Milliseconds => answered as f64 * 17.0,
        }
    }
}

/// The series that one proxy exports: of what it serves, and of what it calls.
fn of_pod(pod: usize, services: usize) -> Vec<(Labels, Counter)> {
    let (nth, zone) = (pod / ZONES.len(), ZONES[pod % ZONES.len()]);
    let name = |nth: usize| format!("service-{nth:05}");
    let target = |more: Labels| {
        let mut labels = more;
        let of_target: Labels = vec![
            ("instance", format!("10.{}.{}.{}:15020", pod >> 16 & 255, pod >> 8 & 255, pod & 255)),
            ("job", "kubernetes-pods".to_owned()),
            ("namespace", namespace(nth)),
            ("pod", format!("{}-{zone}-5d8f9c7b6d", name(nth))),
        ];
        labels.extend(of_target);
        labels.sort_unstable();
        labels
    };
    let mut series = vec![(target(vec![("__name__", "up".to_owned())]), Counter::Up)];
    let (caller, callee) = ((nth + 1) % services, (nth + services - 1) % services);
    for (reporter, source, destination) in [("destination", caller, nth), ("source", nth, callee)] {
        let of = |metric: &str, code: &str, le: Option<&str>| {
            let (source_name, source_namespace) = (name(source), namespace(source));
            let (to, to_namespace) = (name(destination), namespace(destination));
            let mut labels: Labels = vec![
                ("__name__", metric.to_owned()),
                ("connection_security_policy", "mutual_tls".to_owned()),
                ("destination_canonical_revision", "v1".to_owned()),
                ("destination_canonical_service", to.clone()),
                ("destination_cluster", "Kubernetes".to_owned()),
                ("destination_principal", format!("spiffe://cluster.local/ns/{to_namespace}/sa/{to}")),
                ("destination_service", format!("{to}.{to_namespace}.svc.cluster.local")),
                ("destination_service_name", to.clone()),
                ("destination_service_namespace", to_namespace.clone()),
                ("destination_workload", to),
                ("destination_workload_namespace", to_namespace),
                ("grpc_response_status", String::new()),
                ("locality", zone.to_owned()),
                ("reporter", reporter.to_owned()),
                ("request_protocol", "http".to_owned()),
                ("response_code", code.to_owned()),
                ("response_flags", if code == "200" { "-" } else { "UF" }.to_owned()),
                ("source_canonical_service", source_name.clone()),
                ("source_workload", source_name),
                ("source_workload_namespace", source_namespace),
            ];
            labels.extend(le.map(|le| ("le", le.to_owned())));
            labels.retain(|(_, value)| !value.is_empty());
            target(labels)
        };
        series.push((of("istio_requests_total", "200", None), Counter::Answered));
        series.push((of("istio_requests_total", "503", None), Counter::Failed));
        for (edge, below) in EDGES.into_iter().zip(BELOW) {
            let bucket = of("istio_request_duration_milliseconds_bucket", "200", Some(edge));
            series.push((bucket, Counter::Below(below)));
        }
        series.push((of("istio_request_duration_milliseconds_count", "200", None), Counter::Answered));
        series.push((of("istio_request_duration_milliseconds_sum", "200", None), Counter::Milliseconds));
    }
    series
}

fn namespace(nth: usize) -> String {
    format!("team-{:02}", nth % 20)
}

async fn write(client: &reqwest::Client, url: &str, body: &mut Vec<u8>) {
    if body.is_empty() {
        return;
    }
    let request = client
        .post(format!("{url}/api/v1/write"))
        .header("Content-Encoding", "snappy")
        .header("Content-Type", "application/x-protobuf")
        .header("X-Prometheus-Remote-Write-Version", "0.1.0")
        .body(as_snappy(&std::mem::take(body)));
    let answer = request.send().await.unwrap();
    let status = answer.status();
    assert!(status.is_success(), "{status}: {}", answer.text().await.unwrap());
}

/// One literal: not compressed.
fn as_snappy(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() + 16);
    put_varint(&mut out, plain.len() as u64);
    out.push(63 << 2);
    out.extend_from_slice(&(plain.len() as u32 - 1).to_le_bytes());
    out.extend_from_slice(plain);
    out
}

fn put_series(out: &mut Vec<u8>, labels: &Labels, samples: impl Iterator<Item = (i64, f64)>) {
    let mut series = Vec::with_capacity(1024);
    for (name, value) in labels {
        let mut label = Vec::with_capacity(64);
        put_bytes(&mut label, 1, name.as_bytes());
        put_bytes(&mut label, 2, value.as_bytes());
        put_bytes(&mut series, 1, &label);
    }
    for (nth, value) in samples {
        let mut sample = vec![1 << 3 | 1];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(2 << 3);
        put_varint(&mut sample, (nth * SCRAPE_S * 1000) as u64);
        put_bytes(&mut series, 2, &sample);
    }
    put_bytes(out, 1, &series);
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}
