//! Pods of a zone that is out are asked directly, over HTTP and by gRPC's health check.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use tokio::net::TcpListener;
use zoneward::domain::cluster::{Pod, PodId};
use zoneward::domain::{ClusterView, CycleLength, Period, Probes, ServiceId, Zone};
use zoneward::observe::{ProbeSettings, PrometheusObserver, Settings};
use zoneward::ports::Observer;

/// Answers `/well` with 200, `/moved` with 302, and anything else with 500.
async fn http() -> SocketAddr {
    let serve = |request: Request| async move {
        match request.uri().path() {
            "/well" => StatusCode::OK,
            "/moved" => StatusCode::FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(serve)).await.unwrap() });
    address
}

/// Says `SERVING` of the whole server and of `well`, `NOT_SERVING` of `ill`, and ends with `NOT_FOUND` for others.
async fn grpc() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    assert_eq!(request.headers()["content-type"], "application/grpc");
                    let mut body = request.into_body();
                    tokio::spawn(async move {
                        let mut asked = Vec::new();
                        while let Some(Ok(bytes)) = body.data().await {
                            asked.extend(bytes);
                        }
                        let status = match &asked[5..] {
                            [] | [0x0a, 4, b'w', b'e', b'l', b'l'] => 1,
                            [0x0a, 3, b'i', b'l', b'l'] => 2,
                            _ => {
                                let head = Response::builder().header("grpc-status", "5").body(()).unwrap();
                                respond.send_response(head, true).unwrap();
                                return;
                            }
                        };
                        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                        let mut stream = respond.send_response(head, false).unwrap();
                        stream.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]), false).unwrap();
                        let trailers = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
                        stream.send_trailers(trailers.into_iter().collect()).unwrap();
                    });
                }
            });
        }
    });
    address
}

fn web() -> ServiceId {
    ServiceId::new("default", "web")
}

/// Ready pods of the service in zones a and b, all at the address, and one that is not ready.
fn cluster(address: IpAddr) -> ClusterView {
    let mut view = ClusterView::default();
    for (name, zone, ready) in [("a-1", "a", true), ("b-1", "b", true), ("b-2", "b", true), ("b-3", "b", false)] {
        let pod = Pod {
            zone: Some(Zone::new(zone)),
            address: Some(address),
            ready,
            services: [web()].into(),
            ..Pod::default()
        };
        view.pods.insert(PodId { namespace: "default".into(), name: name.to_owned() }, pod);
    }
    view
}

async fn ask(server: SocketAddr, path: Option<&str>, grpc: Option<&str>) -> Option<Probes> {
    let (path, grpc) = (path.map(str::to_owned), grpc.map(str::to_owned));
    let probes = vec![ProbeSettings { service: web(), port: server.port(), path, grpc }];
    let settings = Settings { probes, ..Settings::default() };
    let mut observer = PrometheusObserver::new(settings, CycleLength::at_least(Period::from_secs(15))).unwrap();
    observer.learn_places(&cluster(server.ip()));
    observer.probe(&Zone::new("b")).await
}

#[tokio::test]
async fn the_ready_pods_of_the_zone_are_asked_over_http() {
    let server = http().await;
    for path in ["/well", "/moved"] {
        assert_eq!(ask(server, Some(path), None).await.unwrap(), Probes { asked: 2, failed: 0, why: None });
    }
    let ill = ask(server, Some("/ill"), None).await.unwrap();
    assert_eq!((ill.asked, ill.failed), (2, 2));
    let why = ill.why.unwrap();
    assert!(
        why.starts_with("default/web at 127.0.0.1:")
            && why.ends_with("GET /ill was answered 500 Internal Server Error")
    );
}

#[tokio::test]
async fn a_grpc_server_passes_only_by_saying_that_it_serves() {
    let server = grpc().await;
    for name in ["", "well"] {
        assert_eq!(ask(server, None, Some(name)).await.unwrap(), Probes { asked: 2, failed: 0, why: None });
    }
    let ill = ask(server, None, Some("ill")).await.unwrap();
    assert!(ill.failed == 2 && ill.why.unwrap().contains("does not say SERVING"));
    let unknown = ask(server, None, Some("unknown")).await.unwrap();
    assert!(unknown.why.unwrap().contains("gRPC status 5"));
}

#[tokio::test]
async fn pods_that_are_not_there_fail_and_without_probes_nobody_is_asked() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = ask(nobody, Some("/"), None).await.unwrap();
    assert!(refused.failed == 2 && refused.why.unwrap().contains("refused"));
    let cycle = CycleLength::at_least(Period::from_secs(15));
    let mut observer = PrometheusObserver::new(Settings::default(), cycle).unwrap();
    observer.learn_places(&cluster(nobody.ip()));
    assert_eq!(observer.probe(&Zone::new("b")).await, None);
}
